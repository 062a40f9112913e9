"""What SGLang's page allocation kernels compute, on a machine that Triton cannot compile for.

Releases up to 0.5.21 have no other way to allocate pages of more than one token. They launch the kernel *before* they
compare the pages needed with the pages free, and throw its result away when there are too few: these functions must
stand a short list of free pages, and what they write then means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class OnCpu:
    """Stands for a Triton kernel: ``OnCpu(function)[grid](*arguments)`` calls the function once for the whole grid."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._function


def alloc_extend(
    prefix_lens: torch.Tensor,
    seq_lens: torch.Tensor,
    last_loc: torch.Tensor,
    free_pages: torch.Tensor,
    out_indices: torch.Tensor,
    _batch_size_upper: int,
    page_size: int,
) -> None:
    """Choose a slot for each position from ``prefix_lens[i]`` to ``seq_lens[i]`` of every request, in request order.

    Positions that lie in the last page of the prefix follow ``last_loc[i]``, its last slot; those behind it fill free
    pages in list order. int64 tensors of shape [requests], but ``free_pages`` [free] and ``out_indices`` [positions].
    """
    at = taken = 0
    for prefix, end, last in zip(prefix_lens.tolist(), seq_lens.tolist(), last_loc.tolist(), strict=True):
        positions = torch.arange(prefix, end)
        started = -(-prefix // page_size)
        which = positions // page_size - started
        out = _slots(free_pages, taken + which, positions % page_size, page_size)
        out = torch.where(which < 0, last + 1 + positions - prefix, out)
        out_indices[at : at + end - prefix] = out
        at += end - prefix
        taken += -(-end // page_size) - started


def alloc_decode(
    seq_lens: torch.Tensor,
    last_loc: torch.Tensor,
    free_pages: torch.Tensor,
    out_indices: torch.Tensor,
    _batch_size_upper: int,
    page_size: int,
) -> None:
    """Choose a slot for the last position of each request; shapes as in `alloc_extend`, ``out_indices`` [requests]."""
    starts_page = (seq_lens - 1) % page_size == 0
    rank = torch.cumsum(starts_page, 0) - 1
    out_indices.copy_(torch.where(starts_page, _slots(free_pages, rank, torch.zeros(()), page_size), last_loc + 1))


def _slots(free_pages: torch.Tensor, index: torch.Tensor, offset: torch.Tensor, page_size: int) -> torch.Tensor:
    """Slots in the free pages number ``index``; an index outside the list gives some slot."""
    if not len(free_pages):
        return torch.zeros_like(index)
    return free_pages[index.clamp(0, len(free_pages) - 1)] * page_size + offset.long()


def install() -> None:
    """Replace the kernels where a release has nothing else. Idempotent; call it before a pool is allocated from."""
    from sglang.srt.mem_cache.allocator import paged

    # Releases that compute the same without Triton have both functions by these names and choose for themselves.
    if hasattr(paged, "alloc_decode_naive"):
        return
    module: Any = paged
    module.alloc_extend_kernel = OnCpu(alloc_extend)
    module.alloc_decode_kernel = OnCpu(alloc_decode)
