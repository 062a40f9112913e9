"""The clock that SGLang's sessions see: steps of the event loop, so that what closes by time closes reproducibly.

SGLang looks once a second after sessions that idled too long, and after those that were closed while a turn of theirs
ran. In real time that is some hundred steps apart, or none, as the machine's load will have it.
"""

from __future__ import annotations

from typing import Any

from sr_fuzz.sglang_api.server_args import is_alone

STEP_S = 0.125
"""Seconds that a step counts for: SGLang then looks in every ninth step, often within a script."""

_BOOT_S = 1000.0


class SessionClock:
    """Stands for the module ``time`` where sessions ask it; only ``monotonic`` is asked for."""

    def __init__(self) -> None:
        self._now = _BOOT_S

    def monotonic(self) -> float:
        """Seconds, by steps."""
        return self._now

    def next_step(self) -> None:
        self._now += STEP_S

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def begin_script(self) -> None:
        """Let SGLang look in the coming step, whatever was played before: each script has the same steps then."""
        self._now += 1.0 + STEP_S


def install(scheduler: Any) -> SessionClock:
    """Give the scheduler's sessions a clock of steps. Once a process."""
    from sglang.srt.session import session_controller

    clock = SessionClock()
    controller = scheduler.session_controller
    look = controller.maybe_reap

    def maybe_reap(now: float, *args: Any, **kwargs: Any) -> None:
        """Called once a step; SGLang passes the real time."""
        clock.next_step()
        look(clock.monotonic(), *args, **kwargs)

    session_controller.time = clock
    controller.maybe_reap = maybe_reap
    return clock


def begin_script(scheduler: Any) -> None:
    """See `SessionClock.begin_script`. Of several ranks none does: each counts for itself, and they must agree."""
    from sglang.srt.session import session_controller

    if isinstance(session_controller.time, SessionClock) and is_alone(scheduler.server_args):
        session_controller.time.begin_script()


def advance(seconds: float) -> None:
    """Let time pass; nothing happens where sessions have the machine's own clock."""
    from sglang.srt.session import session_controller

    if isinstance(session_controller.time, SessionClock):
        session_controller.time.advance(seconds)
