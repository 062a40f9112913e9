"""The clock of SGLang's sessions: it counts steps of the event loop, so that sessions time out reproducibly.

Once a second SGLang checks for sessions that were idle too long, and for those that were closed while one of their
turns ran. In real time there are a few or some hundred steps between two checks, depending on the machine's load.
"""

from __future__ import annotations

from typing import Any

from sr_fuzz.sglang_api.server_args import is_alone

STEP_S = 0.125
"""Seconds that a step counts for: SGLang then checks in every ninth step, which is often within a script."""

_BOOT_S = 1000.0


class SessionClock:
    """A mock of the module ``time`` for sessions, which use only ``monotonic``."""

    def __init__(self) -> None:
        self._now = _BOOT_S

    def monotonic(self) -> float:
        """Return the time in seconds, derived from the steps."""
        return self._now

    def next_step(self) -> None:
        self._now += STEP_S

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def begin_script(self) -> None:
        """Make SGLang check in the coming step, whatever was played before, so that each script has the same checks."""
        self._now += 1.0 + STEP_S


def install(scheduler: Any) -> SessionClock:
    """Give the scheduler's sessions this clock. Call it once per process."""
    from sglang.srt.session import session_controller

    clock = SessionClock()
    controller = scheduler.session_controller
    look = getattr(controller, "maybe_reap", None)
    if look is None:
        return clock  # a row of the contract says what is lost

    def maybe_reap(now: float, *args: Any, **kwargs: Any) -> None:
        """Called once per step; SGLang passes the real time."""
        clock.next_step()
        look(clock.monotonic(), *args, **kwargs)

    session_controller.time = clock
    controller.maybe_reap = maybe_reap
    return clock


def begin_script(scheduler: Any) -> None:
    """See `SessionClock.begin_script`.

    With several ranks it does nothing: each rank counts steps, and they must agree.
    """
    from sglang.srt.session import session_controller

    if isinstance(session_controller.time, SessionClock) and is_alone(scheduler.server_args):
        session_controller.time.begin_script()


def advance(seconds: float) -> None:
    """Advance the clock; no effect if sessions use the machine's own clock."""
    from sglang.srt.session import session_controller

    if isinstance(session_controller.time, SessionClock):
        session_controller.time.advance(seconds)
