"""Output of a bisection: a line for each point when it has been played, then when the finding came and went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.status import Status
from rich.text import Text

from sr_fuzz.campaign.bisection import Bisection, Change, Event, Period, PointPlayed, PointStarted, Row
from sr_fuzz.report.words import plural

# A release has a name of six characters; a commit's is a line by itself.
_SHORT = 14

_NAMED = 4
"""Points without a verdict that an answer names; of more the first and the last."""


class BisectionOutput:
    """A listener that prints each verdict on ``console`` and, where that is a terminal, what is being played."""

    def __init__(self, console: Console, progress: Console) -> None:
        self._console = console
        self._status: Status | None = progress.status("") if progress.is_terminal else None

    def __enter__(self) -> BisectionOutput:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, PointPlayed):
            if self._status is not None:
                self._status.stop()
            self._console.print(Text(row_line(event.row)), soft_wrap=True)
        elif isinstance(event, PointStarted) and self._status is not None:
            self._status.update(Text(f"playing {event.point} (number {event.number}, of at most {event.most})"))
            self._status.start()


def row_line(row: Row) -> str:
    gap = "  " if len(row.point) <= _SHORT else "\n    "
    return f"{row.point}{gap}{row.verdict.kind}: {row.verdict.reason}"


def answers(found: Bisection) -> list[str]:
    """Return when the finding came and went, a sentence for each."""
    decided = [row for row in found.rows if row.verdict.shows is not None]
    if not decided:
        return [f"{found.finding}: none of {plural(len(found.rows), 'point')} could tell whether it shows"]
    if not found.periods:
        left = [row.point for row in found.rows if row.verdict.shows is None]
        several = f"from {decided[0].point} to {decided[-1].point}"
        where = several if len(decided) > 1 else f"in {decided[0].point}, the only one that could tell"
        return [f"{found.finding} does not show {where}{_but(left)}"]
    lines = [line for number, period in enumerate(found.periods) for line in _of_period(period, number)]
    if found.periods[-1].mended is None:
        newest = max(number for number, row in enumerate(found.rows) if row.verdict.shows is not None)
        after = [row.point for row in found.rows[newest + 1 :]]
        lines.append(f"still there in {found.rows[newest].point}, the newest that could tell{_but(after)}")
    return [found.finding, *(f"  {line}" for line in lines)]


def history_lines(releases: Bisection, trees: Sequence[Row] = (), commits: Bisection | None = None) -> list[str]:
    """Return what is known of a finding's history, a sentence for each fact, without its name."""
    told = answers(releases) if releases.rows else []
    lines = [line.strip() for line in told[1:]] or [line.removeprefix(f"{releases.finding} ") for line in told]
    lines += [f"{row.point}: {row.verdict.kind}" for row in trees]
    return lines + [line.strip() for line in (answers(commits)[1:] if commits is not None else [])]


def _of_period(period: Period, number: int) -> Iterator[str]:
    yield _begin(period.introduced, "back" if number else "introduced")
    if period.mended is not None:
        yield _where(period.mended, "mended", "with")


def _begin(change: Change, what: str) -> str:
    if change.after is None:
        earlier = " or before" if change.undecided else ", the oldest that was played"
        return f"already there in {change.by}{earlier}{_but(change.undecided)}"
    return _where(change, what, "without")


def _where(change: Change, what: str, before: str) -> str:
    at = f"{what} in {change.by}" if change.is_exact else f"{what} in {change.by} or before"
    return f"{at}; the last {before} it: {change.after}{_but(change.undecided)}"


def _but(undecided: Sequence[str]) -> str:
    if not undecided:
        return ""
    several = f"{undecided[0]} to {undecided[-1]} ({len(undecided)})"
    return f" (no verdict: {', '.join(undecided) if len(undecided) <= _NAMED else several})"
