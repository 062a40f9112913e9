"""SGLang's ``ServerArgs`` for an engine configuration: its own settings, those of the device and those of the model."""

from __future__ import annotations

import contextlib
from typing import Any

from sr_fuzz.cpu import host_cache, speculation, transfer
from sr_fuzz.oracle import adapter_weights
from sr_fuzz.oracle.settings import oracle_settings
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.server_args import BY_ENVIRONMENT, check_policy, device_settings, make

_DEFAULTS = EngineConfig()

# Fields whose default was chosen for the fuzzer; they are always passed on. Any other field keeps the release's own
# default unless a configuration changes it, so a field that only newer releases have needs no entry.
_ALWAYS = {
    "page_size", "max_total_tokens", "max_running_requests", "chunked_prefill_size", "max_prefill_tokens",
    "disable_overlap_schedule", "enable_mixed_chunk", "disable_radix_cache", "schedule_policy",
    "schedule_conservativeness", "enable_priority_scheduling", "disable_priority_preemption",
    "schedule_low_priority_values_first", "priority_scheduling_preemption_threshold", "max_queued_requests",
    "stream_interval", "tp_size", "pp_size", "dp_size",
}  # fmt: skip


def engine_kwargs(config: EngineConfig, *, device: str = "cpu", model: str | None = None) -> dict[str, Any]:
    """Return the keyword arguments for SGLang's ``ServerArgs``: those of ``config``, of the device and of the model.

    ``model``: a path or name; None for the oracle model.
    """
    fields = {name: getattr(config, name) for name in config.__struct_fields__ if name not in BY_ENVIRONMENT}
    kind = fields.pop("model")
    if config.enable_lora:
        if model is not None:
            raise EngineError("enable_lora: the adapters are made for the oracle model, not for a real one")
        kind = "lora" if kind == "dense" else f"{kind}_lora"
    fields = {n: value for n, value in fields.items() if n in _ALWAYS or value != getattr(_DEFAULTS, n)}
    # -1 makes SGLang size the pool from device memory unless the fraction is given; max_total_tokens then caps it.
    extra: dict[str, Any] = {"mem_fraction_static": 0.5} if config.chunked_prefill_size < 0 else {}
    chosen = {**oracle_settings(kind), **device_settings(device)} if model is None else model_settings(model, device)
    if config.disaggregation_mode != "null":
        extra["disaggregation_transfer_backend"] = transfer.BACKENDS[config.disaggregation_mode]
        # Tokens that the decode half reserves for each request before it admits another; the default 512 exceeds the
        # pool.
        extra["num_reserved_decode_tokens"] = 4
    if config.enable_hierarchical_cache or config.disaggregation_mode == "decode":
        # The decode half keeps retracted KV on the host; by default it has room for a fifth of the pool, and aborts the
        # rest.
        extra |= host_cache.SETTINGS | {"hicache_ratio": 2.0}
    if config.enable_lora:
        extra |= adapter_weights.settings(config)
    if config.speculative_algorithm is not None:
        extra |= speculation.settings(config.page_size, device)
    return {**chosen, **fields, **extra}


def model_settings(model: str, device: str) -> dict[str, Any]:
    """Return the settings for a real model on ``device``, with outputs as schedule-independent as SGLang allows."""
    # Prompts and outputs are token ids.
    settings = {**device_settings(device), "model_path": model, "skip_tokenizer_init": True}
    if device == "cpu":
        # SGLang would use 16 bits, whose rounding changes a small model's output after a dozen tokens.
        return settings | {"dtype": "float32"}
    # Of SGLang's deterministic backends, the one that supports the prefix cache on every GPU.
    deterministic = {"enable_deterministic_inference": True, "attention_backend": "triton"}
    return settings | deterministic | {"sampling_backend": "pytorch"}


def install_stand_ins(config: EngineConfig) -> None:
    """Install the stand-ins that only this configuration needs on a CPU.

    Call it before faults, which import what they patch.
    """
    if config.model == "mamba" or config.enable_lora:
        from sr_fuzz.cpu import pinned_memory

        pinned_memory.install()
    if config.speculative_algorithm is not None:
        speculation.install()


def install_kernels() -> None:
    """Install the kernels that every configuration needs on a CPU, before its scheduler is built."""
    from sr_fuzz.cpu import host_cache, kernels, transfer

    kernels.install()
    host_cache.install()
    transfer.install()


def build(config: EngineConfig, *, device: str = "cpu", model: str | None = None) -> Any:
    """Return SGLang's ``ServerArgs`` for a configuration, resolved and checked; call it after `install_stand_ins`."""
    # Imported here because it needs torch, and this module is also used where torch is not installed.
    from sr_fuzz.cpu import recurrent_states

    check_policy(config.schedule_policy)
    on_cpu = device == "cpu"
    if config.speculative_algorithm is not None:
        speculation.check(config, device)
    with contextlib.ExitStack() as accepted:
        if on_cpu and config.model == "mamba":
            accepted.enter_context(recurrent_states.extra_buffer_accepted())
        if on_cpu and config.speculative_algorithm is not None:
            accepted.enter_context(speculation.overlap_accepted())
        args = make(engine_kwargs(config, device=device, model=model))
        if hasattr(args, "resolve_once"):
            args.resolve_once()
        args.check_server_args()
    return args
