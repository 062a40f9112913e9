"""CPU versions of SGLang's page allocation kernels, for a machine that Triton cannot compile for.

Releases up to 0.5.21 have no other way to allocate pages of more than one token. They launch the kernel *before* they
compare the number of pages needed with the number of free pages, and discard the result when there are too few. So
these functions must accept a free list that is too short; what they write then is meaningless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


class OnCpu:
    """A stand-in for a Triton kernel: ``OnCpu(function)[grid](*arguments)`` calls it once for the whole grid."""

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

    Positions in the last page of the prefix follow ``last_loc[i]``, the prefix's last slot; later positions fill free
    pages in list order. All tensors are int64 of shape [requests], except ``free_pages`` [free] and ``out_indices``
    [positions].
    """
    prefix, end, last = (_flat(tensor) for tensor in (prefix_lens, seq_lens, last_loc))
    lengths = end - prefix
    # The number of pages up to the prefix's end, and the number of new pages for each request.
    begun = -(-prefix // page_size)
    wanted = -(-end // page_size) - begun
    # For each position: its offset after the prefix, and the index of its page among the new ones (below 0 if none).
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.repeat(prefix, lengths) + offset
    page = position // page_size - np.repeat(begun, lengths)
    free = _slots(free_pages, np.repeat(np.cumsum(wanted) - wanted, lengths) + page, page_size) + position % page_size
    _flat(out_indices)[:] = np.where(page < 0, np.repeat(last, lengths) + 1 + offset, free)


def alloc_decode(
    seq_lens: torch.Tensor,
    last_loc: torch.Tensor,
    free_pages: torch.Tensor,
    out_indices: torch.Tensor,
    _batch_size_upper: int,
    page_size: int,
) -> None:
    """Choose a slot for the last position of each request; shapes as in `alloc_extend`, ``out_indices`` [requests]."""
    starts_page = (_flat(seq_lens) - 1) % page_size == 0
    free = _slots(free_pages, np.cumsum(starts_page) - 1, page_size)
    _flat(out_indices)[:] = np.where(starts_page, free, _flat(last_loc) + 1)


def _flat(tensor: torch.Tensor) -> np.ndarray:
    """View the tensor's memory as an array: an operation takes 1 µs in numpy and 5 µs in torch.

    Arrays are short here.
    """
    return tensor.detach().numpy()


def _slots(free_pages: torch.Tensor, index: np.ndarray, page_size: int) -> np.ndarray:
    """Return the first slots of the free pages at ``index``; an index outside the list gives an arbitrary slot."""
    if not len(free_pages):
        return np.zeros_like(index)
    return _flat(free_pages).take(index, mode="clip") * page_size


def install() -> None:
    """Replace the kernels on releases without an alternative.

    Idempotent; call it before the first allocation from a pool.
    """
    try:
        from sglang.srt.mem_cache.allocator import paged
    except ImportError:
        return  # a row of the contract says what is lost

    # Releases that can do this without Triton have both functions under these names and choose between them.
    if hasattr(paged, "alloc_decode_naive"):
        return
    module: Any = paged
    module.alloc_extend_kernel = OnCpu(alloc_extend)
    module.alloc_decode_kernel = OnCpu(alloc_decode)
