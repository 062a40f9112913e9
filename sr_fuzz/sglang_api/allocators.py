"""Reads KV allocators: which pages are free, on any supported release.

A free page that is not in ``free_pages`` may be *pending*: it is merged later (``release_pages``, in newer paged
allocators ``staged_pages``), or it is held back by an open free group. All of these count as free. Sources:
``mem_cache/allocator/{base,token,paged}.py``.
"""

from __future__ import annotations

from typing import Any


def free_pages(allocator: Any) -> list[int]:
    """Return the ids of free pages, including pending ones, in list order.

    A page that was freed twice appears twice.
    """
    # The paged allocator of newer releases stages frees in a list of tensors; older ones keep one tensor.
    late = allocator.staged_pages if hasattr(allocator, "staged_pages") else [allocator.release_pages]
    pages: list[int] = []
    for part in (allocator.free_pages, *late):
        if part is not None:
            pages += part.tolist()
    return pages + _held_back(allocator)


def _held_back(allocator: Any) -> list[int]:
    """Return the pages that were freed since a free group was opened: by slots, by one slot per page, or by page id."""
    # Up to 0.5.18 a group that ends leaves its list behind; a separate flag says whether the group is open.
    if getattr(allocator, "is_not_in_free_group", False):
        return []
    size = allocator.page_size
    slots = [slot for part in allocator.free_group or () for slot in part.tolist()]
    # As at the end of the group: all slots together, each page once.
    pages = slots if size == 1 else sorted({slot // size for slot in slots})
    pages += [slot // size for part in getattr(allocator, "free_page_reps_group", ()) for slot in part.tolist()]
    pages += [page for part in getattr(allocator, "free_page_ids_group", ()) for page in part.tolist()]
    return pages


def two_pools(allocator: Any) -> bool:
    """Whether it has a pool for full attention and one for a sliding window, each with its own pages."""
    return hasattr(allocator, "swa_attn_allocator") and not only_window(allocator)


def only_window(allocator: Any) -> bool:
    """Whether it has one pool for a model with sliding window layers only."""
    window = getattr(allocator, "swa_attn_allocator", None)
    return window is not None and allocator.full_attn_allocator is window


def full_pool(allocator: Any) -> Any:
    """Return the allocator of the pages to which request rows and tree nodes refer."""
    return getattr(allocator, "full_attn_allocator", allocator)


def free_full_pages(allocator: Any) -> list[int]:
    """Return the free pages of `full_pool`, including those that two pools hold back in their own free group."""
    pool = full_pool(allocator)
    return free_pages(pool) + (_held_back(allocator) if pool is not allocator else [])


def free_window_pages(allocator: Any) -> list[int]:
    """Return the free pages of the sliding window's pool, where there are `two_pools`."""
    table, size = allocator.full_to_swa_index_mapping, allocator.page_size
    slots: list[int] = []
    if hasattr(allocator, "is_not_in_free_group"):
        # Up to 0.5.18 both groups hold slots of the full pool, which are translated when the group ends.
        if not allocator.is_not_in_free_group:
            groups = (*allocator.free_group, *getattr(allocator, "swa_free_group", ()))
            slots = [slot for part in groups for slot in table[part].tolist()]
    else:
        slots = [slot for part in allocator.swa_free_group for slot in part.tolist()]
    pages = free_pages(window_pool(allocator)) + sorted({slot // size for slot in slots if slot > 0})
    return pages + [page for part in getattr(allocator, "swa_page_ids_group", ()) for page in part.tolist()]


def window_pool(allocator: Any) -> Any:
    """Return the allocator of the sliding window's pages, where there are `two_pools`."""
    return allocator.swa_attn_allocator


def state_allocator(req_to_token_pool: Any) -> Any | None:
    """Return the allocator of slots for recurrent states; None where the model has none."""
    return getattr(req_to_token_pool, "mamba_allocator", None)
