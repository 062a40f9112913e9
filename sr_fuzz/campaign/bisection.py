"""Bisection: at which points of SGLang's history a finding begins, and ceases, to show.

A *point* is a release or a commit. What one point says comes from a callable that plays the finding there; this file
knows neither engines nor git. Only two verdicts decide anything: that the finding shows, and that it does not. A point
at which it cannot be told has neither; where such points lie between two that decide, the change is in one of them, or
in the later of the two, and no further answer is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec

Kind = Literal["shows", "shows something else", "does not show", "cannot be expressed", "does not boot", "trouble"]
"""``shows something else``: another violation ended the run before the finding could show. ``cannot be expressed``: the
point lacks a field of the configuration, refuses the configuration, cannot play an action, or cannot be checked for
what the finding breaks. ``does not boot``: no scheduler starts there, whatever the configuration. ``trouble``: the
script could not be played for a reason that says nothing about SGLang."""

SHOWS: Kind = "shows"
SILENT: Kind = "does not show"


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one point says of a finding."""

    kind: Kind
    reason: str
    """What was seen, in one line."""
    signature: str | None = None
    """Of the violation that was seen, if any."""
    runs: int = 0
    """Runs that the verdict rests on."""

    @property
    def shows(self) -> bool | None:
        """Whether the finding is there; None where that cannot be told."""
        return {SHOWS: True, SILENT: False}.get(self.kind)


class Row(msgspec.Struct, frozen=True):
    """One point that was played."""

    point: str
    verdict: Verdict


class Change(msgspec.Struct, frozen=True):
    """Where a finding begins, or ceases, to show: after one point, and at the latest at another."""

    by: str
    """The first point with the new verdict."""
    after: str | None = None
    """The last point with the old one; None where no earlier point has it."""
    undecided: tuple[str, ...] = ()
    """The points between the two, or before the first: none of them could tell."""

    @property
    def is_exact(self) -> bool:
        """Whether ``by`` is the very point that has made the change."""
        return self.after is not None and not self.undecided


class Period(msgspec.Struct, frozen=True):
    """Points, one after the other, at which the finding shows."""

    introduced: Change
    """With ``after``, the last point without it."""
    mended: Change | None = None
    """With ``after``, the last point that has it; None where no later point is without it."""


class Bisection(msgspec.Struct, frozen=True):
    """All verdicts, the oldest point first, and what follows from them."""

    finding: str
    """The signature that was looked for."""
    rows: tuple[Row, ...]
    periods: tuple[Period, ...]
    """Two where it was mended and came back. None where it shows nowhere."""

    @property
    def is_decided(self) -> bool:
        """Whether any point could tell."""
        return any(row.verdict.shows is not None for row in self.rows)


class PointStarted(msgspec.Struct, frozen=True):
    """A point is about to be played; ``most`` is the largest number of points that may be."""

    point: str
    number: int
    most: int


class PointPlayed(msgspec.Struct, frozen=True):
    """A point has given its verdict."""

    row: Row


Event = PointStarted | PointPlayed
Judge = Callable[[str], Verdict]
OnEvent = Callable[[Event], None]


class WrongEnd(ValueError):
    """A point between which and another one a change was to be looked for is not what it was said to be."""

    def __init__(self, row: Row, expected: Kind) -> None:
        super().__init__(f"{row.point}: {row.verdict.kind} ({row.verdict.reason}); expected that it {expected}")
        self.row = row
        self.expected = expected


def ignore(event: Event) -> None:
    """The listener of a caller that wants to know the result alone."""


def play_all(finding: str, points: Sequence[str], judge: Judge, on_event: OnEvent = ignore) -> Bisection:
    """Ask every point. A bug may be mended and come back, so that is the only way to know a history for certain."""
    played = _Played(points, judge, on_event)
    for index in range(len(points)):
        played.kind(index)
    return played.result(finding)


def search(
    finding: str, points: Sequence[str], judge: Judge, on_event: OnEvent = ignore, *, mended: bool = False
) -> Bisection:
    """Look between the first point, which is without the finding, and the last, which has it, by halving.

    ``mended``: the first has it and the last is without it. The change that is reported is a change, and where there
    are several, one of them. At least two points. Raises `WrongEnd` when one of the ends is not as it should be.
    """
    if len(points) < 2:
        raise ValueError(f"points: a search needs a first and a last one, got {len(points)}")
    played = _Played(points, judge, on_event)
    before, after = (SHOWS, SILENT) if mended else (SILENT, SHOWS)
    for end, expected in ((0, before), (len(points) - 1, after)):
        if played.kind(end) != expected:
            raise WrongEnd(played.row(end), expected)
    _narrow(played, before, after)
    return played.result(finding)


def quick(finding: str, points: Sequence[str], judge: Judge, on_event: OnEvent = ignore) -> Bisection:
    """Halve where the first and the last point differ; ask every point where they do not, or cannot tell."""
    played = _Played(points, judge, on_event)
    ends = [played.kind(index) for index in (0, len(points) - 1)] if points else []
    if sorted(ends) == sorted([SHOWS, SILENT]):
        _narrow(played, *ends)
    else:
        for index in range(len(points)):
            played.kind(index)
    return played.result(finding)


def from_rows(finding: str, rows: Sequence[Row]) -> Bisection:
    """Return what follows from verdicts, the oldest point first."""
    return Bisection(finding, tuple(rows), tuple(_periods(rows)))


def _narrow(played: _Played, before: Kind, after: Kind) -> None:
    """Play points until all are played between the last one known to be as the first and the one where that changes.
    """
    low, high, skipped = 0, len(played) - 1, 0
    while open_points := [index for index in range(low + 1, high) if not played.has(index)]:
        index = _nearest(open_points, low + (high - low) * _fraction(skipped))
        kind = played.kind(index)
        skipped = 0 if kind in (before, after) else skipped + 1
        low, high = (index if kind == before else low), (index if kind == after else high)


class _Played:
    """The verdicts so far; each point is asked once."""

    def __init__(self, points: Sequence[str], judge: Judge, on_event: OnEvent) -> None:
        self._points = points
        self._judge = judge
        self._on_event = on_event
        self._verdicts: dict[int, Verdict] = {}

    def __len__(self) -> int:
        return len(self._points)

    def has(self, index: int) -> bool:
        return index in self._verdicts

    def kind(self, index: int) -> Kind:
        if index not in self._verdicts:
            self._on_event(PointStarted(self._points[index], len(self._verdicts) + 1, len(self._points)))
            self._verdicts[index] = self._judge(self._points[index])
            self._on_event(PointPlayed(self.row(index)))
        return self._verdicts[index].kind

    def row(self, index: int) -> Row:
        return Row(self._points[index], self._verdicts[index])

    def result(self, finding: str) -> Bisection:
        return from_rows(finding, [self.row(index) for index in sorted(self._verdicts)])


def _fraction(skipped: int) -> float:
    """1/2, then 1/4, 3/4, 1/8, 5/8 …: points that cannot tell often lie side by side, and are left behind sooner."""
    fraction, unit, number = 0.0, 0.5, skipped + 1
    while number:
        fraction += unit * (number % 2)
        unit, number = unit / 2, number // 2
    return fraction


def _nearest(indexes: Sequence[int], wanted: float) -> int:
    return min(indexes, key=lambda index: abs(index - wanted))


def _periods(rows: Sequence[Row]) -> Iterator[Period]:
    introduced: Change | None = None
    last: str | None = None
    """The last point that could tell."""
    undecided: list[str] = []
    for row in rows:
        shows = row.verdict.shows
        if shows is None:
            undecided.append(row.point)
            continue
        if shows is not (introduced is not None):
            change = Change(row.point, last, tuple(undecided))
            if introduced is not None:
                yield Period(introduced, change)
            introduced = None if introduced is not None else change
        last, undecided = row.point, []
    if introduced is not None:
        yield Period(introduced)
