"""Several ranks on one machine: what they need, and what cannot be."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import EngineError

# SGLang binds each rank's OpenMP threads to a NUMA node of its own, unless it is told which cores; one rank then needs
# no more than one core, and ranks may share one.
_BIND = "SGLANG_CPU_OMP_THREADS_BIND"


_SIZES = ("tp_size", "pp_size", "dp_size")


class Ranks(NamedTuple):
    """Tensor, pipeline and data parallel ranks, in that order; 1 leaves a configuration as it is."""

    tp: int = 1
    pp: int = 1
    dp: int = 1

    @property
    def several(self) -> bool:
        return max(self) > 1

    @property
    def fields(self) -> dict[str, int]:
        """Those of more than one rank, as fields of `EngineConfig` and of SGLang's ``ServerArgs``."""
        return {f"{name}_size": count for name, count in zip(self._fields, self) if count > 1}

    def in_config(self, config: EngineConfig) -> EngineConfig:
        return replace(config, **self.fields)

    def in_script(self, script: Script) -> Script:
        return replace(script, config=self.in_config(script.config)) if self.several else script


def world_size(arguments: Mapping[str, Any]) -> int:
    """Scheduler processes for keyword arguments of SGLang's ``ServerArgs``."""
    return math.prod(arguments.get(name, 1) for name in _SIZES)


def environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What several ranks need in the environment of an engine's processes."""
    ranks = world_size(arguments)
    if arguments.get("device") != "cpu" or ranks == 1 or _BIND in os.environ:
        return {}
    cores = sorted(os.sched_getaffinity(0))
    return {_BIND: "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))}


def fit_binding(arguments: Mapping[str, Any]) -> None:
    """Up to 0.5.18 SGLang wants the cores of each tensor rank, which all stages share, and not those of each rank."""
    from sglang.srt.utils import numa_utils

    bound = os.environ.get(_BIND, "").split("|")
    by_tensor_rank = "tp_size" in inspect.signature(numa_utils.init_threads_binding).parameters
    if by_tensor_rank and len(bound) == world_size(arguments):
        os.environ[_BIND] = "|".join(bound[: arguments.get("tp_size", 1)])


def refuse_ranks(config: EngineConfig) -> None:
    """For an engine of one scheduler process. Raises `EngineError` when the configuration asks for several."""
    if config.world_size > 1:
        ranks = ", ".join(f"{name}={getattr(config, name)}" for name in _SIZES if getattr(config, name) > 1)
        raise EngineError(f"{ranks}: several ranks need the server engine, which starts a process for each")
