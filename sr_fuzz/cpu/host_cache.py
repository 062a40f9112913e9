"""What SGLang's hierarchical cache needs without a GPU: pinned host memory, and the copies between the two pools.

The cache's own logic is untouched: it asks CUDA's runtime to pin what it allocated (nothing needs pinning here), and
moves tokens with ``transfer_kv_direct`` of ``sgl_kernel``. On a CPU a copy is over when the call returns, so the order
of writes and reads is the one that SGLang asks for; a copy that somebody should have waited for does not show.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from types import ModuleType

import torch

_MODULES = ("sglang.srt.mem_cache.pool_host.mha", "sglang.srt.mem_cache.memory_pool_host")
"""Where the copies of plain multi-head pools are called; releases have one of them or both."""

_RESERVE = "HICACHE_HOST_MEMORY_RESERVE_BYTES"
"""What SGLang leaves free of the host's memory: 10 GiB, for pools of gigabytes. Ours take some kilobytes."""

_RESERVING = (*_MODULES, "sglang.srt.mem_cache.pool_host.base", "sglang.srt.mem_cache.hicache_auto_size")

SETTINGS = {"hicache_io_backend": "direct", "hicache_mem_layout": "layer_first"}
"""Arguments with which SGLang moves tokens through that one function."""


class _CudaRuntime:
    """The two calls that pin memory, both of which succeed."""

    @staticmethod
    def cudaHostRegister(_pointer: int, _size: int, _flags: int) -> int:
        return 0

    @staticmethod
    def cudaHostUnregister(_pointer: int) -> int:
        return 0


def transfer_kv_direct(
    src_layers: Sequence[torch.Tensor],
    dst_layers: Sequence[torch.Tensor],
    src_indices: torch.Tensor,
    dst_indices: torch.Tensor,
    page_size: int,
) -> None:
    """Copy the tokens at ``src_indices`` (int64, shape [tokens]) of each layer to ``dst_indices``, in order.

    Whole pages are asked for, each in consecutive slots, so a copy by token is a copy by page.
    """
    for source, target in zip(src_layers, dst_layers, strict=True):
        target[dst_indices.long()] = source[src_indices.long()]


def install() -> None:
    """Idempotent; call it before a scheduler with a hierarchical cache is built on a machine without CUDA."""
    torch.cuda.cudart = _CudaRuntime
    for module in _found(_MODULES):
        module.transfer_kv_direct = transfer_kv_direct  # type: ignore[attr-defined]
    for module in _found(_RESERVING):
        if hasattr(module, _RESERVE):
            setattr(module, _RESERVE, 0)


def _found(names: Iterable[str]) -> Iterator[ModuleType]:
    for name in names:
        with suppress(ModuleNotFoundError):
            yield importlib.import_module(name)
