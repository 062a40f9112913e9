"""A searcher: a process that draws scripts and plays them, round after round, and says what it saw."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis.strategies import SearchStrategy
from msgspec.structs import replace

from sr_fuzz.campaign.cells import cells_of
from sr_fuzz.campaign.search import Search
from sr_fuzz.campaign.trouble import RESUMING
from sr_fuzz.campaign.workers.messages import FromProcess, NotBooted, Played, Round, RoundDone
from sr_fuzz.campaign.workers.told_trouble import ToldTrouble
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome
from sr_fuzz.strategies.scripts import Drawn

ScriptsOf = Callable[[tuple[str, ...]], SearchStrategy[Drawn]]
"""Gives the strategy of a round, by the names of its configurations."""


class Searcher:
    """Plays rounds on its own engine."""

    def __init__(
        self,
        engine: Engine,
        scripts_of: ScriptsOf,
        *,
        send: Callable[[FromProcess], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        """``is_stopped`` is asked before each script."""
        self._scripts_of = scripts_of
        self._send = send
        self._is_stopped = is_stopped
        troubles = ToldTrouble(send)

        def restart() -> None:
            try:
                engine.restart()
            except Exception as error:
                troubles.keep(None, error, "restarting")

        self._search = Search(
            ResumedEngine(engine, lambda script, error: troubles.keep(script, error, RESUMING)),
            troubles=troubles, restart=restart,
            on_not_booted=lambda config, error: send(NotBooted(config, str(error))),
        )  # fmt: skip

    def play(self, order: Round) -> None:
        """Play a round; each script is told when it has been played, and the end of the round."""
        self._search.played.update(order.played)

        def on_played(drawn: Drawn, outcome: Outcome) -> None:
            cells = tuple(sorted(cells_of(outcome)))
            shown = outcome if outcome.violation is not None else replace(outcome, trace=())
            self._send(Played(order.number, drawn.script, shown, cells, drawn.motifs))

        self._search.round(
            self._scripts_of(order.configs), order.seed, on_played,
            script_of=lambda drawn: drawn.script, may_go_on=lambda: not self._is_stopped(), count=order.count,
        )  # fmt: skip
        self._send(RoundDone(order.number, self._search.gave_up))
