"""Patches for SGLang's hierarchical cache without a GPU: pinned host memory, and the copies between the two pools.

The cache's own logic is not changed. It asks CUDA's runtime to pin the memory that it allocated (nothing needs pinning
here), and it moves tokens with ``transfer_kv_direct`` of ``sgl_kernel``. On a CPU a copy is complete when the call
returns, so writes and reads happen in the order in which SGLang issues them. A missing wait for a copy can therefore
not be detected.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from types import ModuleType

import torch

_MODULES = ("sglang.srt.mem_cache.pool_host.mha", "sglang.srt.mem_cache.memory_pool_host")
"""Modules that call the copies of plain multi-head pools; a release has one of them or both."""

_RESERVE = "HICACHE_HOST_MEMORY_RESERVE_BYTES"
"""The host memory that SGLang leaves free: 10 GiB, meant for pools of gigabytes. Our pools take some kilobytes."""

_RESERVING = (*_MODULES, "sglang.srt.mem_cache.pool_host.base", "sglang.srt.mem_cache.hicache_auto_size")

SETTINGS = {"hicache_io_backend": "direct", "hicache_mem_layout": "layer_first"}
"""Server arguments with which SGLang moves tokens through `transfer_kv_direct` only."""


class _CudaRuntime:
    """A stand-in of CUDA's runtime: both calls that pin memory succeed."""

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

    The caller asks for whole pages, each in consecutive slots, so a copy by token equals a copy by page.
    """
    for source, target in zip(src_layers, dst_layers, strict=True):
        target[dst_indices.long()] = source[src_indices.long()]


def install() -> None:
    """Apply the patches.

    Idempotent; call it before a scheduler with a hierarchical cache is built on a machine without CUDA.
    """
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
