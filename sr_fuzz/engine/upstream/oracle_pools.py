"""Giving the oracle model its pools where SGLang's own scripted runtime plays, and no engine of ours boots anything."""

from __future__ import annotations

from sr_fuzz.cpu import kernels, standins
from sr_fuzz.engine.boot import bind_oracle
from sr_fuzz.sglang_api import seams


def bind_oracle_when_loop_starts() -> None:
    """From now on a scheduler of this process binds its model before its first step. Idempotent."""
    if standins.wanted():
        kernels.install()
    seams.before_event_loop(bind_oracle)
