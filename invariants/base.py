"""What an invariant is.

One object per run, so that an invariant may remember earlier steps. It looks at the view and never acts on it. Each
says in its docstring: the formula, its source in SGLang, the cache kinds it covers, and the known false alarms that
its formula avoids.
"""

from __future__ import annotations

from typing import NamedTuple

from sr_fuzz.view.view import SchedulerView


class Problem(NamedTuple):
    """A broken invariant: a stable rule name, and a message with what was seen and what was expected."""

    rule: str
    message: str


class Invariant:
    """Base class. `check` runs after each step, `check_end` after the epilogue has drained the engine."""

    name: str = ""
    family: str = ""
    """Group for property tests: ``memory``, ``lifecycle``, ``output``, ``sglang``."""

    def no_subject(self, view: SchedulerView) -> str | None:
        """Why there is nothing on this engine that it is about; None when there is. No gap: nothing goes unchecked."""
        return None

    def not_covered(self, view: SchedulerView) -> str | None:
        """Why this invariant cannot be checked on this engine although it has a subject; None when it can."""
        return None

    def coarse(self, view: SchedulerView) -> str | None:
        """What is checked here instead of the whole formula; None when it is checked as it stands."""
        return None

    def check(self, view: SchedulerView) -> Problem | None:
        """After each step of the loop, paused steps included."""
        return None

    def check_end(self, view: SchedulerView) -> Problem | None:
        """Once, when the epilogue is over: continued, released, drained, but not yet flushed."""
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        """Once more after the flush that follows, if everybody was answered before it."""
        return None


def disaggregated(view: SchedulerView) -> str | None:
    """Why an invariant of the unified mode is not checked: prefill and decode servers have queues of their own."""
    return f"this is the {view.half} half of a disaggregated pair" if view.half else None


def sessions_open(view: SchedulerView) -> bool:
    """Whether any session is open: it may hold memory that no request holds."""
    return bool(view.open_sessions)


def names(values: list[str], limit: int = 8) -> str:
    """``r0, r1`` or, for many, the first few and how many more."""
    shown = ", ".join(values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def numbers(values: list[int], limit: int = 12) -> str:
    """``3, 4, 9`` or, for many, the first few and how many more."""
    return names([str(v) for v in sorted(values)], limit)


def first_line(error: BaseException) -> str:
    """What an exception says, for a message."""
    text = str(error).strip().splitlines()
    return text[0][:400] if text else type(error).__name__
