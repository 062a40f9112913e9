"""Several ranks by SGLang's own arguments, and the cores that they are bound to on a CPU."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

SIZES = ("tp_size", "pp_size", "dp_size")
"""Arguments that multiply scheduler processes."""

# SGLang binds each rank's OpenMP threads to a NUMA node of its own, unless it is told which cores; one rank then needs
# no more than one core, and ranks may share one.
_BIND = "SGLANG_CPU_OMP_THREADS_BIND"


def world_size(arguments: Mapping[str, Any]) -> int:
    """Scheduler processes for keyword arguments of SGLang's ``ServerArgs``."""
    return math.prod(arguments.get(name, 1) for name in SIZES)


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
