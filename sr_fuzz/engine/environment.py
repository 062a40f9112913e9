"""Environment variables that switch our SGLang plugin on. Imports nothing: every SGLang process reads this."""

from __future__ import annotations

LIVE = "SR_FUZZ_LIVE"
"""Names the private folder of the live engine that a process belongs to."""

ORACLE = "SR_FUZZ_BIND_ORACLE"
"""Set where SGLang's own scripted runtime plays: the oracle model then only needs its pools."""
