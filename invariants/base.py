"""The base class of the invariants, and helpers for their messages.

There is one object per run, so that an invariant may remember earlier steps. An invariant reads the view and never acts
on it. Its docstring states the formula, its source in SGLang, the cache kinds it covers, and the known false alarms
that the formula avoids.
"""

from __future__ import annotations

from typing import NamedTuple

from sr_fuzz.view.view import SchedulerView


class Problem(NamedTuple):
    """A broken invariant: a stable rule name, and a message with what was seen and what was expected."""

    rule: str
    message: str


class Invariant:
    """Base class: `check` runs after each step, `check_end` after the epilogue has drained the engine."""

    name: str = ""
    family: str = ""
    """Group for property tests: ``memory``, ``lifecycle``, ``output``, ``sglang``."""

    def no_subject(self, view: SchedulerView) -> str | None:
        """Why this engine has nothing that the invariant is about; None if it has.

        This is not a gap in coverage, because nothing goes unchecked.
        """
        return None

    def not_covered(self, view: SchedulerView) -> str | None:
        """Why this invariant cannot be checked on this engine although it has a subject; None when it can."""
        return None

    def coarse(self, view: SchedulerView) -> str | None:
        """What is checked on this engine instead of the whole formula; None if the whole formula is checked."""
        return None

    def check(self, view: SchedulerView) -> Problem | None:
        """Check after each step, paused steps included."""
        return None

    def check_end(self, view: SchedulerView) -> Problem | None:
        """Check once at the end of the epilogue: continued, released and drained, but not yet flushed."""
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        """Check once more after the flush that follows, if all requests were answered before it."""
        return None


def disaggregated(view: SchedulerView) -> str | None:
    """Why an invariant of the unified mode is not checked: prefill and decode servers have queues of their own."""
    return f"this is the {view.half} half of a disaggregated pair" if view.half else None


def sessions_open(view: SchedulerView) -> bool:
    """Whether any session is open: it may hold memory that no request holds."""
    return bool(view.open_sessions)


def names(values: list[str], limit: int = 8) -> str:
    """The values as ``r0, r1``; of many values, the first few and how many more there are."""
    shown = ", ".join(values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def numbers(values: list[int], limit: int = 12) -> str:
    """The sorted numbers as ``3, 4, 9``; of many numbers, the first few and how many more there are."""
    return names([str(v) for v in sorted(values)], limit)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, for a message."""
    text = str(error).strip().splitlines()
    return text[0][:400] if text else type(error).__name__
