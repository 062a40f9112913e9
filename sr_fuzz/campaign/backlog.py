"""The violations that wait for the follower, which takes longer for one than a searcher needs to see the next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from sr_fuzz.campaign.known_hits import face
from sr_fuzz.campaign.record import Origin
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import Script

MOST_A_FACE = 2
"""Violations of one signature and face that wait; more of them say no more, and are counted."""

MOST = 400
"""Violations that wait. One with its trace takes some hundred KB at most; more signatures were never seen in a night
(twenty to thirty), nor more than ten faces of one."""


class Waiting(NamedTuple):
    """A violation that waits."""

    found: str
    script: Script
    outcome: Outcome
    origin: Origin | None = None
    """What the script was made from."""


class Backlog:
    """First those of a signature that nobody knows, then the others, each in the order in which they came."""

    def __init__(self, is_new: Callable[[str], bool]) -> None:
        """``is_new``: whether nobody knows a signature yet."""
        self._is_new = is_new
        self._waiting: deque[Waiting] = deque()
        self._number: Counter[tuple[str, str]] = Counter()
        self._hits: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiting: Waiting) -> None:
        """Let a violation wait; one more of its face, or one too many, is counted only."""
        key = waiting.found, face(waiting.outcome)
        if self._number[key] >= MOST_A_FACE or len(self._waiting) >= MOST:
            self._hits[waiting.found] += 1
            return
        self._number[key] += 1
        self._waiting.append(waiting)

    def new(self) -> int:
        """Number of signatures that wait and that nobody knows."""
        return len({waiting.found for waiting in self._waiting if self._is_new(waiting.found)})

    def take(self) -> Waiting | None:
        """Return the next one, which waits no more."""
        chosen = next((one for one in self._waiting if self._is_new(one.found)), None)
        if chosen is None and self._waiting:
            chosen = self._waiting[0]
        if chosen is not None:
            self._waiting.remove(chosen)
            self._number[chosen.found, face(chosen.outcome)] -= 1
        return chosen

    def left(self) -> dict[str, int]:
        """Return how many violations of each signature nobody has looked at, the counted ones included."""
        return dict(Counter(waiting.found for waiting in self._waiting) + self._hits)

    def take_hits(self) -> dict[str, int]:
        """Return the violations that are counted only, of signatures of which none waits."""
        there = {waiting.found for waiting in self._waiting}
        hits = {found: number for found, number in self._hits.items() if found not in there}
        for found in hits:
            del self._hits[found]
        return hits
