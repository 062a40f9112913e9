"""The search: it draws scripts, round after round, and plays each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis.strategies import SearchStrategy

from sr_fuzz.campaign.trouble import MAX_IN_A_ROW, Troubles, first_line
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script, script_hash
from sr_fuzz.script.errors import ConfigNotBooted
from sr_fuzz.strategies import draw

Item = TypeVar("Item")

# Hypothesis begins each round with a few small examples, which are useful only now and then, and keeps all generated
# examples until the round ends, which costs memory. A round of one hundred limits both.
ROUND = 100

# Keeps the rounds of neighbouring seeds apart: seed 7, round 1 must not be seed 8, round 0.
_SEED_STRIDE = 1_000_003


def round_seed(seed: int, number: int) -> int:
    """Return the seed of a round of the campaign with that ``seed``."""
    return seed * _SEED_STRIDE + number


class Leave(BaseException):
    """Leaves Hypothesis at once. It is not an `Exception`, which Hypothesis would treat as a failure and replay."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class Search:
    """Plays scripts on one engine.

    An error that keeps a script from being played is trouble: the engines are started anew and the search goes on,
    unless several scripts in a row could not be played (`gave_up`).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        troubles: Troubles,
        restart: Callable[[], None],
        on_not_booted: Callable[[EngineConfig, ConfigNotBooted], None],
    ) -> None:
        """``restart``: starts the engines anew. ``on_not_booted`` is called once for each configuration."""
        self._engine = engine
        self._troubles = troubles
        self._restart = restart
        self._on_not_booted = on_not_booted
        self._in_a_row = 0
        self.played: set[str] = set()
        """Hashes of the scripts that are not played again."""
        self.not_booted: dict[EngineConfig, ConfigNotBooted] = {}
        self.gave_up = ""
        """Why no script can be played any more; empty as long as one can."""

    def round(
        self,
        items: SearchStrategy[Item],
        seed: int,
        on_played: Callable[[Item, Outcome], None],
        *,
        script_of: Callable[[Item], Script],
        may_go_on: Callable[[], bool] = lambda: True,
        count: int = ROUND,
    ) -> bool:
        """Play the scripts of up to ``count`` items that ``seed`` draws; returns whether the round came to its end.

        It does not where ``may_go_on``, which is asked before each script, is false, and where the search gives up.
        """

        def play(item: Item) -> None:
            if not may_go_on():
                raise Leave
            script = script_of(item)
            key = script_hash(script)
            if key in self.played:
                return
            self.played.add(key)
            try:
                outcome = self.run(script)
                if outcome is not None:
                    on_played(item, outcome)
            except Exception as error:
                raise Leave(error) from error

        try:
            draw.for_each(items, play, seed=seed, count=count)
        except Leave as leave:
            if leave.error is not None:
                raise leave.error from None
            return False
        return True

    def run(self, script: Script) -> Outcome | None:
        """Play one script; None where it could not be played. Raises `Leave` where the search gives up."""
        if script.config in self.not_booted:
            return None
        try:
            outcome = self._engine.run(script)
        except ConfigNotBooted as error:
            self.not_booted[script.config] = error
            self._on_not_booted(script.config, error)
            return None
        except Exception as error:
            self._failed(script, error)
            return None
        self._in_a_row = 0
        return outcome

    def _failed(self, script: Script, error: Exception) -> None:
        """Record an error that is no fault of SGLang, and restart the engine, unless restarts have not helped."""
        self._troubles.keep(script, error, "playing")
        self._in_a_row += 1
        if self._in_a_row >= MAX_IN_A_ROW:
            tried = f"{MAX_IN_A_ROW} scripts in a row could not be played, each on an engine that was started anew"
            self.gave_up = f"{tried}: {first_line(error)}"
            raise Leave
        self._restart()
