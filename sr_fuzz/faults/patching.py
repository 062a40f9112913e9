"""Helpers of several faults and fixes for facts about a request that differ between releases."""

from __future__ import annotations

from typing import Any

from sr_fuzz.faults import wrapped

__all__ = ["drop_lock", "prefix_len", "refuse", "was_aborted", "wrapped"]


def prefix_len(req: Any) -> int:
    """Return how many tokens the request need not compute again; up to 0.5.21 the length of its prefix indices."""
    return req.prefix_len if hasattr(req, "prefix_len") else len(req.prefix_indices)


def refuse(req: Any, reason: str) -> None:
    """Refuse a request on arrival, as SGLang does with one that is too long: it runs one token of a prefill."""
    req.set_finish_with_abort(reason)
    req.sampling_params.max_new_tokens = 0


def was_aborted(req: Any) -> bool:
    """Whether the request has ended by an abort."""
    return req.finished() and req.finished_reason.to_json().get("type") == "abort"


def drop_lock(tree_cache: Any, req: Any) -> None:
    """Release the request's lock on the prefix tree without recording it in the request."""
    if hasattr(req, "lock"):
        tree_cache.unlock(req.lock)
        return
    receipt = getattr(req, "lock_receipt", None)
    tree_cache.dec_lock_ref(req.last_node, *([] if receipt is None else [receipt]))
