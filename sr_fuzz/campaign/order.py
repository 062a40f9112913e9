"""The order in which the configurations of a campaign get time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

GROUP = 4
"""Configurations of a round of `RoundRobin`. Each one that a searcher has not booted yet costs a boot of a second or
two, so one a round would search less; all in each round would give those that yield most no more than the others."""


class RoundResult(NamedTuple):
    """What a round has yielded."""

    number: int
    configs: tuple[str, ...]
    scripts: int
    new_cells: int
    new_faces: int


class Order(Protocol):
    """Decides which configurations the next round draws from."""

    def next(self) -> tuple[str, ...]:
        """Return the names of the configurations of the next round; none where none is left."""
        ...

    def learn(self, result: RoundResult) -> None:
        """Take the result of a round. Results come in the order of the rounds, so that a seed decides the order."""
        ...

    def leave_out(self, config: str) -> None:
        """Give a configuration no more time: it does not boot."""
        ...


class RoundRobin:
    """Each group of configurations gets a round in turn."""

    def __init__(self, configs: Sequence[str], size: int = GROUP) -> None:
        groups = -(-len(configs) // size)
        self._groups = deque([*configs[number::groups]] for number in range(groups))

    def next(self) -> tuple[str, ...]:
        if not self._groups:
            return ()
        group = self._groups[0]
        self._groups.rotate(-1)
        return tuple(group)

    def learn(self, result: RoundResult) -> None:
        """Learn nothing."""

    def leave_out(self, config: str) -> None:
        for group in self._groups:
            if config in group:
                group.remove(config)
        self._groups = deque(group for group in self._groups if group)
