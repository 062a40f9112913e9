"""The signature: what makes two violations the same finding."""

from __future__ import annotations

import hashlib

from sr_fuzz.outcome.violation import Violation
from sr_fuzz.script import EngineConfig


def signature(violation: Violation, config: EngineConfig) -> str:
    """What makes two violations the same finding: invariant, rule, code location in SGLang, engine traits.

    No address, request name, page number or count goes in. Traits are only those that choose other code paths of
    the scheduler's loop: the cache kind, the event loop, paged allocation, pipeline stages.
    """
    traits = [
        "no-radix" if config.disable_radix_cache else "radix",
        "normal" if config.disable_overlap_schedule else "overlap",
    ]
    if config.page_size > 1:
        traits.append("paged")
    if config.pp_size > 1:
        traits.append("pipeline")
    if config.model != "dense":
        traits.append(config.model)
    if config.prefix_tree == "rust":
        traits.append("rust")
    if config.enable_hierarchical_cache:
        traits.append("hicache")
    if config.disaggregation_mode != "null":
        traits.append(config.disaggregation_mode)
    if config.enable_streaming_session:
        traits.append("sessions")
    if config.is_embedding:
        traits.append("embedding")
    if config.enable_lora:
        traits.append("lora")
    if config.speculative_algorithm is not None:
        traits.append(config.speculative_algorithm.lower())
    # Where a hang was interrupted is chance: a loop has many lines.
    where = "" if violation.invariant == "hang" else "|".join(violation.location[:2])
    digest = hashlib.sha256(where.encode()).hexdigest()[:6] if where else ""
    parts = [violation.invariant, violation.rule, "+".join(traits)]
    return ":".join(parts + [digest] if digest else parts)
