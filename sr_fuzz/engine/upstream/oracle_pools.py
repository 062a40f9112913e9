"""Binds the oracle model to its pools in SGLang's own scripted runtime, where no engine of ours boots the scheduler."""

from __future__ import annotations

from sr_fuzz.cpu import kernels, standins
from sr_fuzz.engine.boot import bind_oracle
from sr_fuzz.sglang_api import seams


def bind_oracle_when_loop_starts() -> None:
    """Make each scheduler of this process bind its model before its first step. Idempotent."""
    if standins.wanted():
        kernels.install()
    seams.before_event_loop(bind_oracle)
