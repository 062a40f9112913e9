"""The LoRA adapters of every engine with ``enable_lora``: four, so that they compete for the slots of a pool.

The effect of an adapter is described, like a prompt: the oracle model stores its number with each token, so that KV or
an output that was computed with another adapter differs. `sr_fuzz.oracle.adapter_weights` defines the weights.
"""

from __future__ import annotations

from typing import Any, Literal

AdapterName = Literal["l0", "l1", "l2", "l3"]

ADAPTERS: tuple[str, ...] = ("l0", "l1", "l2", "l3")
"""Names of the adapters. SGLang's ids for them are the same, so that every order by id is the same in all runs of a
script."""

MODELS = ("dense", "swa")
"""Kinds of cache for which the oracle model supports adapters: one in which chunked requests are never parked, and one
in which they are."""

_NEED_LORA = (
    "max_loras_per_batch", "lora_eviction_policy", "lora_drain_wait_threshold", "enable_lora_overlap_loading"
)  # fmt: skip


def adapter_number(name: str | None) -> int:
    """Return the number of an adapter: 0 for the base model, from 1 on for `ADAPTERS`."""
    return 0 if name is None else ADAPTERS.index(name) + 1


def config_problem(config: Any) -> str | None:
    """Return what is invalid about adapters in a configuration, beginning with the field; None if it is valid."""
    if not config.enable_lora:
        for field in _NEED_LORA:
            if getattr(config, field):
                return f"{field}: needs enable_lora, which is false"
        return None
    slots = config.max_loras_per_batch
    if config.enable_lora_overlap_loading and slots is not None and 2 * slots < len(ADAPTERS):
        least = len(ADAPTERS) // 2
        return f"max_loras_per_batch: expected {least} or more, since enable_lora_overlap_loading is true, got {slots}"
    if config.model not in MODELS:
        return f"enable_lora: the oracle has adapters where config.model is {' or '.join(MODELS)}, got {config.model}"
    if config.enable_streaming_session:
        # A session's KV is kept outside the tree, and only the tree's keys distinguish adapters.
        return "enable_lora: cannot be with enable_streaming_session"
    return None


def request_problem(lora_path: str | None, config: Any) -> str | None:
    """Return why a request cannot run with this adapter; None when it can."""
    if lora_path is not None and not config.enable_lora:
        return f"expected null, since config.enable_lora is false, got {lora_path}"
    return None
