"""Faults: bugs that are seeded into SGLang on purpose. Fixes: patches that fix SGLang's own bugs."""

from __future__ import annotations

from sr_fuzz.faults.api import (
    ENVIRONMENT_VARIABLE,
    Fault,
    activate,
    activate_from_environment,
    as_fault,
    counts,
    fault,
    reached,
    reset_counts,
    resolve,
    separate_counts,
    triggered,
    wrapped,
)

__all__ = [
    "ENVIRONMENT_VARIABLE", "Fault", "activate", "activate_from_environment", "as_fault", "counts", "fault",
    "reached", "reset_counts", "resolve", "separate_counts", "triggered", "wrapped",
]  # fmt: skip
