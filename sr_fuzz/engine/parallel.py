"""Several ranks on one machine: what they need, and what cannot be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

# SGLang binds each rank's OpenMP threads to a NUMA node of its own, unless it is told which cores; one rank then needs
# no more than one core, and ranks may share one.
_BIND = "SGLANG_CPU_OMP_THREADS_BIND"


def world_size(arguments: Mapping[str, Any]) -> int:
    """Scheduler processes for keyword arguments of SGLang's ``ServerArgs``."""
    return arguments.get("tp_size", 1) * arguments.get("pp_size", 1) * arguments.get("dp_size", 1)


def environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What several ranks need in the environment of an engine's processes."""
    ranks = world_size(arguments)
    if arguments.get("device") != "cpu" or ranks == 1 or _BIND in os.environ:
        return {}
    cores = sorted(os.sched_getaffinity(0))
    return {_BIND: "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))}
