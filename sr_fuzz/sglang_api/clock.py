"""A clock that a script moves, in the place of ``time`` in the modules of SGLang that keep and read time-outs.

SGLang aborts who waits or runs too long (``SGLANG_REQ_WAITING_TIMEOUT``, ``SGLANG_REQ_RUNNING_TIMEOUT``): the scheduler
compares ``time.perf_counter()`` with what the request's time stats noted by the same call. Both modules ask the name
``time`` in their own namespace for it, so an object of that name does, and nothing of their logic is touched. Elsewhere
SGLang keeps the machine's time: intervals between polls, rates, watchdogs.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

# One reading is later than the one before, as SGLang may rely on, and a whole script's readings are far from a second.
_TICK_S = 1e-7


class VirtualClock:
    """Stands for the module ``time``; only ``perf_counter`` is its own."""

    def __init__(self) -> None:
        # SGLang takes 0 for "not yet".
        self._now = 1000.0

    def perf_counter(self) -> float:
        self._now += _TICK_S
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def set_clock(clock: Any) -> None:
    """Let the scheduler and its requests' time stats read this clock; see `sr_fuzz.sglang_api.clock`."""
    from sglang.srt.lora import lora_drainer
    from sglang.srt.managers import scheduler
    from sglang.srt.observability import req_time_stats

    for module in (scheduler, req_time_stats):
        module.time = clock
    # It compares with what the time stats have noted, but asks for the time by another name.
    lora_drainer.time = SimpleNamespace(monotonic=clock.perf_counter)


def clock_of(scheduler: Any) -> Any:
    """What a scheduler asks for the time: a clock of ours, or the module ``time``."""
    return sys.modules[type(scheduler).__module__].time
