"""Several ranks by SGLang's own arguments, and their binding to cores on a CPU."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

SIZES = ("tp_size", "pp_size", "dp_size")
"""Arguments that multiply the number of scheduler processes."""

# SGLang binds each rank's OpenMP threads to its own NUMA node, unless this variable names the cores. With it a rank
# needs only one core, and ranks may share one.
_BIND = "SGLANG_CPU_OMP_THREADS_BIND"


def world_size(arguments: Mapping[str, Any]) -> int:
    """Return the number of scheduler processes for keyword arguments of SGLang's ``ServerArgs``."""
    return math.prod(arguments.get(name, 1) for name in SIZES)


def environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that several ranks need in an engine's processes."""
    ranks = world_size(arguments)
    if arguments.get("device") != "cpu" or ranks == 1 or _BIND in os.environ:
        return {}
    cores = sorted(os.sched_getaffinity(0))
    return {_BIND: "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))}


def fit_binding(arguments: Mapping[str, Any]) -> None:
    """Adapt the binding: up to 0.5.18 SGLang expects cores per tensor rank, which all stages share, not per rank."""
    from sglang.srt.utils import numa_utils

    bound = os.environ.get(_BIND, "").split("|")
    by_tensor_rank = "tp_size" in inspect.signature(numa_utils.init_threads_binding).parameters
    if by_tensor_rank and len(bound) == world_size(arguments):
        os.environ[_BIND] = "|".join(bound[: arguments.get("tp_size", 1)])
