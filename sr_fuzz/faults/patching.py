"""The few facts about a request that several faults and fixes need and that differ by release."""

from __future__ import annotations

from typing import Any

from sr_fuzz.faults import wrapped

__all__ = ["drop_lock", "prefix_len", "was_aborted", "wrapped"]


def prefix_len(req: Any) -> int:
    """How many tokens it need not compute again; up to 0.5.21 as many as it has indices of."""
    return req.prefix_len if hasattr(req, "prefix_len") else len(req.prefix_indices)


def was_aborted(req: Any) -> bool:
    """Whether the request has ended by an abort."""
    return req.finished() and req.finished_reason.to_json().get("type") == "abort"


def drop_lock(tree_cache: Any, req: Any) -> None:
    """Release the request's lock on the prefix tree, but leave the request in the belief that it holds it."""
    if hasattr(req, "lock"):
        tree_cache.unlock(req.lock)
        return
    receipt = getattr(req, "lock_receipt", None)
    tree_cache.dec_lock_ref(req.last_node, *([] if receipt is None else [receipt]))
