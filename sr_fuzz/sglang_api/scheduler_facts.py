"""Facts that do not change while a scheduler runs: its settings, kinds of model and cache, and own checks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from sr_fuzz.sglang_api.partial import Partial
from sr_fuzz.sglang_api.scheduler_state import busy_check_knows_prompts
from sr_fuzz.sglang_api.speculation import tokens_per_step

# Attributes of the scheduler that delay prefills on purpose; no release has all of them.
_DELAYS = ("prefill_delayer", "min_free_slots_delayer", "prefill_decode_interval", "lora_drainer")


class SchedulerFacts(Partial):
    """Facts of one scheduler, the same for every release. They are read once, when a run begins.

    A fact that cannot be read from this SGLang is absent, and raises ``AttributeError`` where it is accessed.
    """

    is_embedding: bool
    pp_size: int
    """Number of pipeline stages."""
    vocab_size: int
    max_running_requests: int
    chunked_prefill_size: int | None
    mixed_chunk: bool
    hybrid_window: bool
    hybrid_states: bool
    diffusion: bool
    speculative: bool
    tokens_per_step: int
    """Number of tokens that one decode step may add to a request."""
    schedule_policy: str
    priority_scheduling: bool
    low_priority_values_first: bool
    priority_preemption: bool
    preemption_threshold: int
    hierarchical_cache: bool
    """Whether the scheduler moves KV between device and host."""
    hierarchical_cache_asked: bool
    """Whether the server arguments ask for it; a disaggregated half may still have none."""
    storage_backend: bool
    lora: bool
    lora_overlap_loading: bool
    state_checkpoints: bool
    """Whether the tree keeps int8 checkpoints of recurrent states, in separate slots."""
    delays_prefills: str | None
    """The attribute that delays prefills on purpose; None if there is none."""
    has_busy_check: bool
    busy_check_knows_prompts: bool
    has_load_report: bool
    has_tree_check: bool

    def __init__(self, scheduler: Any) -> None:
        for field, read in _FACTS.items():
            self.take(field, functools.partial(read, scheduler))


def _argument(name: str) -> Callable[[Any], Any]:
    return lambda scheduler: getattr(scheduler.server_args, name)


_FACTS: dict[str, Callable[[Any], Any]] = {
    "is_embedding": lambda s: bool(s.server_args.is_embedding),
    "pp_size": _argument("pp_size"),
    "vocab_size": lambda s: s.model_config.vocab_size,
    "max_running_requests": lambda s: s.max_running_requests,
    "chunked_prefill_size": lambda s: s.chunked_prefill_size,
    "mixed_chunk": lambda s: bool(s.is_mixed_chunk),
    "hybrid_window": lambda s: bool(getattr(s, "is_hybrid_swa", False)),
    "hybrid_states": lambda s: bool(getattr(s, "is_hybrid_ssm", False)),
    "diffusion": lambda s: getattr(s, "dllm_config", None) is not None,
    "speculative": lambda s: not s.spec_algorithm.is_none(),
    "tokens_per_step": tokens_per_step,
    "schedule_policy": _argument("schedule_policy"),
    "priority_scheduling": _argument("enable_priority_scheduling"),
    "low_priority_values_first": _argument("schedule_low_priority_values_first"),
    "priority_preemption": lambda s: bool(s.enable_priority_preemption),
    "preemption_threshold": _argument("priority_scheduling_preemption_threshold"),
    "hierarchical_cache": lambda s: bool(getattr(s, "enable_hierarchical_cache", False)),
    "hierarchical_cache_asked": lambda s: bool(s.server_args.enable_hierarchical_cache),
    "storage_backend": lambda s: bool(getattr(s.server_args, "hicache_storage_backend", None)),
    "lora": lambda s: bool(getattr(s.server_args, "enable_lora", False)),
    "lora_overlap_loading": lambda s: bool(getattr(s, "enable_lora_overlap_loading", False)),
    "state_checkpoints": lambda s: getattr(s.req_to_token_pool, "mamba_ckpt_pool", None) is not None,
    "delays_prefills": lambda s: next((name for name in _DELAYS if getattr(s, name, None)), None),
    "has_busy_check": lambda s: hasattr(getattr(s, "invariant_checker", None), "self_check_during_busy"),
    "busy_check_knows_prompts": lambda s: busy_check_knows_prompts(),
    "has_load_report": lambda s: hasattr(getattr(s, "load_inquirer", None), "get_loads"),
    "has_tree_check": lambda s: _has_tree_check(s.tree_cache),
}
"""How each fact is read from a scheduler."""


def _has_tree_check(tree: Any) -> bool:
    """Whether the tree has a sanity check that does not need an idle engine."""
    # Up to 0.5.18 streaming sessions wrap the tree, and forward a method that the tree may not have.
    check = getattr(getattr(tree, "inner", tree), "sanity_check", None)
    return check is not None and not inspect.signature(check).parameters
