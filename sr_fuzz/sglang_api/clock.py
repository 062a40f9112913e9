"""A virtual clock that scripts advance.

It replaces ``time`` in the modules of SGLang that record and check time-outs.

SGLang aborts requests that wait or run too long (``SGLANG_REQ_WAITING_TIMEOUT``, ``SGLANG_REQ_RUNNING_TIMEOUT``): the
scheduler compares ``time.perf_counter()`` with the value that the request's time stats recorded with the same call.
Both modules look up the name ``time`` in their own namespace, so it is enough to patch that name, and their logic is
not changed. Elsewhere SGLang uses the machine's time: intervals between polls, rates, watchdogs.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from types import SimpleNamespace
from typing import Any

# Each reading is later than the previous one, on which SGLang may rely; all readings of a script add up to far less
# than a second.
_TICK_S = 1e-7


class VirtualClock:
    """A mock of the module ``time``; only ``perf_counter`` differs."""

    def __init__(self) -> None:
        # SGLang uses 0 for "not yet".
        self._now = 1000.0

    def perf_counter(self) -> float:
        self._now += _TICK_S
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def set_clock(clock: Any) -> None:
    """Make the scheduler and its requests' time stats read this clock."""
    # The LoRA drainer compares with the values of the time stats, but reads the time by another function.
    drainers = SimpleNamespace(monotonic=clock.perf_counter)
    for name, source in (
        ("managers.scheduler", clock), ("observability.req_time_stats", clock), ("lora.lora_drainer", drainers)
    ):  # fmt: skip
        with contextlib.suppress(ModuleNotFoundError):  # a row of the contract says what is lost then
            importlib.import_module(f"sglang.srt.{name}").time = source


def clock_of(scheduler: Any) -> Any:
    """Return the clock that a scheduler reads: a `VirtualClock`, or the module ``time``."""
    return sys.modules[type(scheduler).__module__].time
