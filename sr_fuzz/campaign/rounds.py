"""The rounds of a campaign: which searcher plays which, and what each has yielded.

Which scripts a seed draws depends on no timing: the order of the configurations changes only by the results of rounds,
in the order of the rounds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import msgspec

from sr_fuzz.campaign.order import Order, RoundResult
from sr_fuzz.campaign.record import Origin, Record
from sr_fuzz.campaign.search import ROUND, round_seed
from sr_fuzz.campaign.workers.messages import Played, Round
from sr_fuzz.script import script_hash

_MOST_KILLED = 2
"""Searchers that may be lost over one round: a third one would be, too."""

_MOST_PLAYED = 200_000
"""Scripts that are remembered so as not to be played again; a hundred bytes each, in each process."""

_EMPTY_ROUNDS = 3
"""Nearly all scripts of a round are new, so that three rounds in a row without one mean that all have been played."""


class _Running(msgspec.Struct):
    """A round that a searcher plays."""

    order: Round
    scripts: int = 0
    new_cells: int = 0
    new_faces: int = 0


class Rounds:
    """The rounds of a campaign: who plays which, and what each has yielded."""

    def __init__(self, seed: int, searchers: int, order: Order, record: Record) -> None:
        self._seed = seed
        self._searchers = searchers
        self._order = order
        self._record = record
        self._numbers: Iterator[int] = itertools.count()
        self._running: dict[str, _Running] = {}
        self._again: list[Round] = []
        """Rounds whose searcher was lost."""
        self._killed: Counter[int] = Counter()
        """How many searchers each round has lost."""
        self._finished: dict[int, RoundResult] = {}
        self._next_result = 0
        self._played: list[str] = []
        self._told: dict[str, int] = {}
        self._empty = 0
        self.exhausted = False
        """Whether no configuration is left, or no round brings a new script."""

    def has(self, searcher: str) -> bool:
        """Whether a searcher plays a round."""
        return searcher in self._running

    def next(self, searcher: str) -> Round | None:
        """Return the next round for a searcher; None where there is none."""
        if self._again:
            order = self._again.pop()
        else:
            configs = self._order.next()
            if not configs:
                self.exhausted = True
                return None
            number = next(self._numbers)
            order = Round(number, round_seed(self._seed, number), configs, ROUND)
        order = msgspec.structs.replace(order, played=tuple(self._played[self._told.get(searcher, 0) :]))
        self._told[searcher] = len(self._played)
        self._running[searcher] = _Running(order)
        return order

    def give_back(self, searcher: str) -> None:
        """A searcher was lost: another one plays its round from the beginning, but for what was played.

        A round that loses a second one ends there.
        """
        self._told.pop(searcher, None)  # the next one with that name knows nothing
        running = self._running.get(searcher)
        if running is None:
            return
        self._killed[running.order.number] += 1
        if self._killed[running.order.number] >= _MOST_KILLED:
            self.done(searcher)
            return
        del self._running[searcher]
        self._again.append(running.order)

    def played(self, searcher: str, message: Played, origin: Origin, face: str, found: str | None) -> None:
        """Count a script of a round."""
        outcome = message.outcome
        new_cells = self._record.add_run(origin, outcome.steps, message.cells, outcome.reach)
        new_face = found is not None and self._record.add_face(origin, found, face)
        if len(self._played) < _MOST_PLAYED:
            self._played.append(script_hash(message.script))
        running = self._running.get(searcher)
        if running is not None:
            running.scripts += 1
            running.new_cells += new_cells
            running.new_faces += new_face

    def done(self, searcher: str) -> None:
        """A round has come to its end."""
        running = self._running.pop(searcher, None)
        if running is None:
            return
        order = running.order
        self._finished[order.number] = RoundResult(
            order.number, order.configs, running.scripts, running.new_cells, running.new_faces
        )
        while (result := self._finished.pop(self._next_result, None)) is not None:
            self._next_result += 1
            self._record.night.rounds += 1
            self._order.learn(result)
            self._empty = 0 if result.scripts else self._empty + 1
        self.exhausted = self.exhausted or self._empty >= _EMPTY_ROUNDS * self._searchers
