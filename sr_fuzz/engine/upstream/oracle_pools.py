"""Giving the oracle model its pools where SGLang's own scripted runtime plays, and no engine of ours boots anything."""

from __future__ import annotations

import functools
from typing import Any

from sr_fuzz.cpu import kernels, standins
from sr_fuzz.engine.boot import bind_oracle


def bind_oracle_when_loop_starts() -> None:
    """From now on a scheduler of this process binds its model before its first step. Idempotent."""
    from sglang.srt.managers.scheduler import Scheduler

    original = Scheduler.run_event_loop
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def run_event_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        bind_oracle(self)
        return original(self, *args, **kwargs)

    if standins.wanted():
        kernels.install()
    Scheduler.run_event_loop = run_event_loop
