"""SGLang's ``ServerArgs``: settings from the environment, settings of a device, and differences between releases."""

from __future__ import annotations

import inspect
from typing import Any

from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import UnsupportedVersion

# Fields that SGLang reads from the environment.
BY_ENVIRONMENT = ("prefix_tree", "req_waiting_timeout", "req_running_timeout")

# Number of positions that leave a sliding window before they are freed. The default of 128 exceeds the length of a
# request here. It is more than 1, so that some positions are freed late.
_WINDOW_INTERVAL = 3


def engine_environment(config: EngineConfig) -> dict[str, str]:
    """Return the settings of ``config`` that SGLang reads from the environment, all of them after its import."""
    found = {}
    if config.prefix_tree is not None:
        # Has an effect up to 0.5.18; later releases have one tree, and `sr_fuzz.engine.boot` compares.
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


def device_settings(device: str) -> dict[str, Any]:
    """Return the settings that a fuzzed scheduler needs on ``device`` (``cpu`` or ``cuda``)."""
    common = {
        "device": device,
        "kv_canary": "none",
        "kv_canary_sweep_interval": 0,
        "skip_server_warmup": True,
        "log_level": "warning",
        # The watchdog uses real time; a script that hangs is detected by the engine's own limit.
        "watchdog_timeout": 3600,
    }
    if device == "cpu":
        return common | {"attention_backend": "torch_native", "sampling_backend": "pytorch"}
    return common | {
        # A captured graph would not include the model's own reads and writes of the KV cache, and takes memory.
        "disable_cuda_graph": True,
        # Without a cap SGLang uses the rest of the device memory for the KV pool; a configuration's own cap takes
        # precedence. This is enough for the largest ballast of SGLang's tests: 32 MB with the oracle, some GB with a
        # small real model.
        "max_total_tokens": 65536,
        # It registers buffers on every device, and its kernels may be missing; NCCL works without it.
        "disable_custom_all_reduce": True,
    }


def check_policy(name: str) -> None:
    try:
        from sglang.srt.managers.schedule_policy import CacheAgnosticPolicy, CacheAwarePolicy
    except ImportError:
        return  # SGLang itself refuses unknown names, with a less clear message
    known = [policy.value for kind in (CacheAwarePolicy, CacheAgnosticPolicy) for policy in kind]
    if name not in known:
        raise UnsupportedVersion(f"this SGLang has no schedule policy {name!r}; it has {', '.join(known)}")


def make(fields: dict[str, Any]) -> Any:
    """Return SGLang's ``ServerArgs`` of these fields.

    Raises `UnsupportedVersion` for a field that this release lacks.
    """
    from sglang.srt.server_args import ServerArgs

    return construct(ServerArgs, fields)


def launch_server(fields: dict[str, Any]) -> None:
    """Run SGLang's HTTP server in this process until it ends."""
    from sglang.srt.entrypoints import http_server

    http_server.launch_server(make(fields))


def construct(cls: type, fields: dict[str, Any]) -> Any:
    """Call ``cls`` with the fields that it has; raises if a field that a configuration asks for is missing."""
    known = set(inspect.signature(cls).parameters)
    # Settings that only some releases have, and whose absence changes nothing.
    optional = {"kv_canary", "kv_canary_sweep_interval", "skip_server_warmup", "grammar_backend", "disable_cuda_graph"}
    missing = set(fields) - known - optional
    if missing:
        raise UnsupportedVersion(f"this SGLang's {cls.__name__} has no {', '.join(sorted(missing))}")
    return cls(**{name: value for name, value in fields.items() if name in known})


def is_alone(args: Any) -> bool:
    """Whether a scheduler with these ``ServerArgs`` is the only rank."""
    return args.tp_size * args.pp_size * args.dp_size == 1
