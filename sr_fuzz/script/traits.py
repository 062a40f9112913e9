"""Engine traits: the fields of a configuration that select other code paths of the scheduler's event loop.

They are one table, in the order in which a signature names them. The signature of a finding contains the words. The
minimiser does not change the fields, since with another value it would be another finding.
"""

from __future__ import annotations

from collections.abc import Callable

from sr_fuzz.script.engine_config import EngineConfig

TRAITS: dict[str, Callable[[EngineConfig], str | None]] = {
    "disable_radix_cache": lambda c: "no-radix" if c.disable_radix_cache else "radix",
    "disable_overlap_schedule": lambda c: "normal" if c.disable_overlap_schedule else "overlap",
    "page_size": lambda c: "paged" if c.page_size > 1 else None,
    "pp_size": lambda c: "pipeline" if c.pp_size > 1 else None,
    "model": lambda c: c.model if c.model != "dense" else None,
    "prefix_tree": lambda c: "rust" if c.prefix_tree == "rust" else None,
    "enable_hierarchical_cache": lambda c: "hicache" if c.enable_hierarchical_cache else None,
    "disaggregation_mode": lambda c: c.disaggregation_mode if c.disaggregation_mode != "null" else None,
    "enable_streaming_session": lambda c: "sessions" if c.enable_streaming_session else None,
    "is_embedding": lambda c: "embedding" if c.is_embedding else None,
    "enable_lora": lambda c: "lora" if c.enable_lora else None,
    "speculative_algorithm": lambda c: c.speculative_algorithm.lower() if c.speculative_algorithm else None,
}
"""The word for each field's value in a configuration; None for the value that most engines have."""


def traits(config: EngineConfig) -> tuple[str, ...]:
    """Return the words for a configuration, in the order of `TRAITS`."""
    return tuple(word for name in TRAITS if (word := TRAITS[name](config)) is not None)
