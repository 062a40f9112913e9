"""What does not change while a scheduler runs: its settings, what its models and caches are, which checks it has."""

from __future__ import annotations

import inspect
from typing import Any

from sr_fuzz.sglang_api.scheduler_state import busy_check_knows_prompts
from sr_fuzz.sglang_api.speculation import tokens_per_step

# What holds prefills back on purpose, by the name of the scheduler's attribute; no release has all of them.
_DELAYS = ("prefill_delayer", "min_free_slots_delayer", "prefill_decode_interval", "lora_drainer")


class SchedulerFacts:
    """Facts of one scheduler, the same whatever the release. Read once, when a run begins."""

    def __init__(self, scheduler: Any) -> None:
        args = scheduler.server_args
        self.is_embedding: bool = bool(args.is_embedding)
        self.pp_size: int = args.pp_size
        """Pipeline stages."""
        self.vocab_size: int = scheduler.model_config.vocab_size
        self.max_running_requests: int = scheduler.max_running_requests
        self.chunked_prefill_size: int | None = scheduler.chunked_prefill_size
        self.mixed_chunk: bool = bool(scheduler.is_mixed_chunk)
        self.hybrid_window: bool = bool(getattr(scheduler, "is_hybrid_swa", False))
        self.hybrid_states: bool = bool(getattr(scheduler, "is_hybrid_ssm", False))
        self.diffusion: bool = getattr(scheduler, "dllm_config", None) is not None
        self.speculative: bool = not scheduler.spec_algorithm.is_none()
        self.tokens_per_step: int = tokens_per_step(scheduler)
        """Tokens that one decode step may add to a request."""
        self.schedule_policy: str = args.schedule_policy
        self.priority_scheduling: bool = bool(args.enable_priority_scheduling)
        self.low_priority_values_first: bool = bool(args.schedule_low_priority_values_first)
        self.priority_preemption: bool = bool(scheduler.enable_priority_preemption)
        self.preemption_threshold: int = args.priority_scheduling_preemption_threshold
        self.hierarchical_cache: bool = bool(getattr(scheduler, "enable_hierarchical_cache", False))
        """Whether the scheduler moves KV between device and host."""
        self.hierarchical_cache_asked: bool = bool(args.enable_hierarchical_cache)
        """Whether the server arguments ask for it; a disaggregated half may answer otherwise."""
        self.storage_backend: bool = bool(getattr(args, "hicache_storage_backend", None))
        self.lora: bool = bool(getattr(args, "enable_lora", False))
        self.lora_overlap_loading: bool = bool(getattr(scheduler, "enable_lora_overlap_loading", False))
        self.state_checkpoints: bool = getattr(scheduler.req_to_token_pool, "mamba_ckpt_pool", None) is not None
        """Whether the tree keeps int8 checkpoints of recurrent states, in slots of their own."""
        self.delays_prefills: str | None = next((n for n in _DELAYS if getattr(scheduler, n, None)), None)
        """What holds prefills back on purpose; None where nothing does."""
        self.has_busy_check: bool = hasattr(getattr(scheduler, "invariant_checker", None), "self_check_during_busy")
        self.busy_check_knows_prompts: bool = busy_check_knows_prompts()
        self.has_load_report: bool = hasattr(getattr(scheduler, "load_inquirer", None), "get_loads")
        self.has_tree_check: bool = _has_tree_check(scheduler.tree_cache)


def _has_tree_check(tree: Any) -> bool:
    """Whether the tree has a sanity check that needs no idle engine."""
    # Up to 0.5.18 streaming sessions are wrapped around the tree, and pass on what it may not have.
    check = getattr(getattr(tree, "inner", tree), "sanity_check", None)
    return check is not None and not inspect.signature(check).parameters
