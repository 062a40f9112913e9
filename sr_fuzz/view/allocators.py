"""Reading KV allocators: which pages are free, whatever the release keeps them in.

A page that is neither in ``free_pages`` nor anywhere else visible may be *pending*: sorted in later
(``release_pages``, in newer paged allocators ``staged_pages``) or held back by an open free group. All of these
count as free. Sources: ``mem_cache/allocator/{base,token,paged}.py``.
"""

from __future__ import annotations

from typing import Any


def free_pages(allocator: Any) -> list[int]:
    """Ids of free pages, pending ones included, in list order; a page that was freed twice appears twice."""
    pages: list[int] = []
    # The paged allocator of newer releases stages frees in a list of tensors; older ones keep one tensor.
    if hasattr(allocator, "staged_pages"):
        parts = [allocator.free_pages, *allocator.staged_pages]
    else:
        parts = [allocator.free_pages, allocator.release_pages]
    for part in parts:
        if part is not None:
            pages += part.tolist()
    group = allocator.free_group
    # 0.5.16 leaves a stale list behind when a group ends, and says so in a flag of its own.
    if group and not getattr(allocator, "is_not_in_free_group", False):
        page_size = allocator.page_size
        for part in group:
            slots = part.tolist()
            pages += slots if page_size == 1 else sorted({slot // page_size for slot in slots})
    return pages
