"""Environment variables that activate our SGLang plugin."""

from __future__ import annotations

LIVE = "SR_FUZZ_LIVE"
"""The private folder of the live engine that a process belongs to."""

ORACLE = "SR_FUZZ_BIND_ORACLE"
"""Set for SGLang's own scripted runtime, where the plugin only binds the oracle model to its pools."""
