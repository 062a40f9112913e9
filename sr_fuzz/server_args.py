"""SGLang's ``ServerArgs`` for an engine configuration: its settings, the device's and the model's."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

from sr_fuzz.cpu import adapters, host_cache, speculation, transfer
from sr_fuzz.cpu.standins import MODEL_PATH
from sr_fuzz.errors import EngineError, UnsupportedVersion
from sr_fuzz.script import EngineConfig

# Fields that SGLang reads from the environment.
BY_ENVIRONMENT = ("prefix_tree", "req_waiting_timeout", "req_running_timeout")

_WHEN_GIVEN = {
    "retraction_policy", "enable_hierarchical_cache", "hicache_write_policy", "speculative_algorithm",
    "disaggregation_mode", "swa_full_tokens_ratio", "max_mamba_cache_size", "mamba_radix_cache_strategy",
    "mamba_track_interval", "enable_streaming_session", "is_embedding", "enable_lora", "max_loras_per_batch",
    "lora_eviction_policy", "lora_drain_wait_threshold", "enable_lora_overlap_loading",
}  # fmt: skip

_DEFAULT = {name: getattr(EngineConfig(), name) for name in EngineConfig.__struct_fields__}


# Positions that leave a sliding window are given back so many at a time, 128 by default: more than a request is long
# here. Not one, so that some are late.
_WINDOW_INTERVAL = 3


def engine_environment(config: EngineConfig) -> dict[str, str]:
    """Settings of ``config`` that SGLang reads from the environment, all of them after it is imported."""
    found = {}
    if config.prefix_tree is not None:
        # Up to 0.5.18; later releases have one tree, and `sr_fuzz.engine.boot` compares.
        found["SGLANG_ENABLE_UNIFIED_RADIX_TREE"] = "0" if config.prefix_tree == "legacy" else "1"
        found["SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND"] = "rust" if config.prefix_tree == "rust" else "python"
    if config.model in ("swa", "pure_swa"):
        found["SGLANG_SWA_EVICTION_INTERVAL"] = str(_WINDOW_INTERVAL)
    for field, variable in (
        ("req_waiting_timeout", "SGLANG_REQ_WAITING_TIMEOUT"),
        ("req_running_timeout", "SGLANG_REQ_RUNNING_TIMEOUT"),
    ):
        if getattr(config, field) is not None:
            found[variable] = str(getattr(config, field))
    return found


def engine_kwargs(config: EngineConfig, *, device: str = "cpu", model: str | None = None) -> dict[str, Any]:
    """Keyword arguments for SGLang's ``ServerArgs``: those of ``config``, of the device, and of the model.

    ``model``: a path or name; None stands for the oracle model.
    """
    fields = {name: getattr(config, name) for name in config.__struct_fields__ if name not in BY_ENVIRONMENT}
    kind = fields.pop("model")
    if config.enable_lora:
        if model is not None:
            raise EngineError("enable_lora: the adapters are made for the oracle model, not for a real one")
        kind = "lora" if kind == "dense" else f"{kind}_lora"
    # What is newer than the oldest release, or nobody asked for, is left to the release's own default.
    fields = {name: value for name, value in fields.items() if name not in _WHEN_GIVEN or value != _DEFAULT[name]}
    # -1 makes SGLang size the pool from device memory unless the fraction is given; max_total_tokens then caps it.
    extra: dict[str, Any] = {"mem_fraction_static": 0.5} if config.chunked_prefill_size < 0 else {}
    chosen = {**oracle_settings(kind), **device_settings(device)} if model is None else model_settings(model, device)
    if config.disaggregation_mode != "null":
        extra["disaggregation_transfer_backend"] = transfer.BACKENDS[config.disaggregation_mode]
        # Room that the decode half leaves to each request before it takes another; 512 by default, more than the pool.
        extra["num_reserved_decode_tokens"] = 4
    if config.enable_hierarchical_cache or config.disaggregation_mode == "decode":
        # The decode half keeps on the host what it retracts; by default a fifth of the pool, and aborts the rest.
        extra |= host_cache.SETTINGS | {"hicache_ratio": 2.0}
    if config.enable_lora:
        extra |= adapters.settings(config)
    if config.speculative_algorithm is not None:
        extra |= speculation.settings(config.page_size, device)
    return {**chosen, **fields, **extra}


def oracle_settings(kind: str = "dense") -> dict[str, Any]:
    """Settings for the oracle model of a kind of cache: a configuration without weights or a tokenizer."""
    return {
        "model_path": str(MODEL_PATH if kind == "dense" else MODEL_PATH / kind),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        # Holds token ids and positions exactly in the key buffer.
        "dtype": "float32",
        # Pure torch, on every device: the model computes no attention.
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "random_seed": 0,
    }


def model_settings(model: str, device: str) -> dict[str, Any]:
    """Settings for a real model on ``device``, its outputs as independent of the schedule as SGLang can make them."""
    # Prompts and outputs are token ids.
    settings = {**device_settings(device), "model_path": model, "skip_tokenizer_init": True}
    if device == "cpu":
        # SGLang would take 16 bits, whose rounding shows in a small model's outputs after a dozen tokens.
        return settings | {"dtype": "float32"}
    # Of the backends that SGLang has deterministic, the one that keeps the prefix cache on every GPU.
    deterministic = {"enable_deterministic_inference": True, "attention_backend": "triton"}
    return settings | deterministic | {"sampling_backend": "pytorch"}


def device_settings(device: str) -> dict[str, Any]:
    """Settings that a fuzzed scheduler needs on ``device`` (``cpu`` or ``cuda``)."""
    common = {
        "device": device,
        "kv_canary": "none",
        "kv_canary_sweep_interval": 0,
        "skip_server_warmup": True,
        "log_level": "warning",
        # The watchdog is a clock; a script that hangs is found by the engine's own limit.
        "watchdog_timeout": 3600,
    }
    if device == "cpu":
        return common | {"attention_backend": "torch_native", "sampling_backend": "pytorch"}
    return common | {
        # A captured graph would leave out the model's own reads and writes of the KV cache, and takes memory.
        "disable_cuda_graph": True,
        # SGLang gives what is left of the device to the KV pool unless it is capped; a configuration's own cap wins.
        # Enough for the largest ballast of SGLang's tests, 32 MB with the oracle, some GB with a small real model.
        "max_total_tokens": 65536,
        # It registers buffers on every device, and its kernels may be missing; NCCL does without.
        "disable_custom_all_reduce": True,
    }


def install_stand_ins(config: EngineConfig) -> None:
    """Put in place what only this configuration needs on a CPU. Before faults, which import what they patch."""
    if config.model == "mamba" or config.enable_lora:
        from sr_fuzz.cpu import pinned

        pinned.install()
    if config.speculative_algorithm is not None:
        speculation.install()


def build(config: EngineConfig, *, device: str = "cpu", model: str | None = None) -> Any:
    """SGLang's ``ServerArgs`` for a configuration, resolved and checked; after `install_stand_ins`."""
    from sglang.srt.server_args import ServerArgs

    # Here, not above: it needs torch, and settings are read where that is not there.
    from sr_fuzz.cpu import recurrent

    _check_policy(config.schedule_policy)
    on_cpu = device == "cpu"
    if config.speculative_algorithm is not None:
        speculation.check(config, device)
    with contextlib.ExitStack() as accepted:
        if on_cpu and config.model == "mamba":
            accepted.enter_context(recurrent.extra_buffer_accepted())
        if on_cpu and config.speculative_algorithm is not None:
            accepted.enter_context(speculation.overlap_accepted())
        args = construct(ServerArgs, engine_kwargs(config, device=device, model=model))
        if hasattr(args, "resolve_once"):
            args.resolve_once()
        args.check_server_args()
    return args


def _check_policy(name: str) -> None:
    from sglang.srt.managers.schedule_policy import CacheAgnosticPolicy, CacheAwarePolicy

    known = [policy.value for kind in (CacheAwarePolicy, CacheAgnosticPolicy) for policy in kind]
    if name not in known:
        raise UnsupportedVersion(f"this SGLang has no schedule policy {name!r}; it has {', '.join(known)}")


def construct(cls: type, fields: dict[str, Any]) -> Any:
    """Call ``cls`` with those fields it has; refuse to drop one that was asked for by a configuration."""
    known = set(inspect.signature(cls).parameters)
    # Settings that only some releases have and whose absence changes nothing.
    optional = {"kv_canary", "kv_canary_sweep_interval", "skip_server_warmup", "grammar_backend", "disable_cuda_graph"}
    missing = set(fields) - known - optional
    if missing:
        raise UnsupportedVersion(f"this SGLang's {cls.__name__} has no {', '.join(sorted(missing))}")
    return cls(**{name: value for name, value in fields.items() if name in known})
