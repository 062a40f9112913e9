"""The cache slots and tree locks that a request holds, read the same way on any supported release."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple


class KvState(NamedTuple):
    """The KV cache that a request holds, in tokens; its own slots are row positions [protected, allocated)."""

    row: int
    protected: int
    """Positions below this belong to the prefix tree."""
    committed: int
    """Positions below this have been written by a forward that was launched."""
    allocated: int


def kv_state(req: Any) -> KvState | None:
    """Return the request's KV bookkeeping; None when it holds no row."""
    record = req.kv
    if hasattr(record, "req_pool_idx"):
        return kv_of_record(record)
    # Up to 0.5.18 ``req.kv`` has only the allocated length, and is None while nothing is allocated.
    if req.req_pool_idx is None:
        return None
    allocated = record.kv_allocated_len if record is not None else 0
    return KvState(int(req.req_pool_idx), int(req.cache_protected_len), int(req.kv_committed_len), int(allocated))


def kv_of_record(record: Any) -> KvState | None:
    """Return the same from a KV record of a request or a session, in 0.5.19 and later."""
    if record.req_pool_idx is None:
        return None
    lens = (record.cache_protected_len, record.kv_committed_len, record.kv_allocated_len)
    return KvState(int(record.req_pool_idx), *map(int, lens))


def committed_len(req: Any) -> int:
    """Return the number of positions written by launched forwards, also for a request that has freed its row."""
    holder = req.kv if hasattr(req.kv, "req_pool_idx") else req
    return int(holder.kv_committed_len)


def output_through_stop(req: Any) -> list[int]:
    """Return the request's output as its client sees it.

    On a retraction the decode half removes the newest token, and appends it again after the re-bootstrap, when the
    prefill half has recomputed all tokens before it.
    """
    held_back = getattr(req, "pd_rebootstrap_forced_output_id", None)
    return [*req.output_ids_through_stop, *([] if held_back is None else [held_back])]


def lock_node(req: Any) -> Any:
    """Return the node (up to 0.5.18 the node itself, later its integer id) whose path the request has locked, or None.

    Up to 0.5.21 a waiting request may keep a ``last_node`` from a match without holding a lock. A request without KV
    holds no lock.
    """
    if hasattr(req, "lock"):
        return None if req.lock is None else req.lock.node
    if kv_state(req) is None or _stands_for_session(req.last_node):
        return None
    return req.last_node


def _stands_for_session(node: Any) -> bool:
    """Whether the node of a later turn of a streaming session is a placeholder: its session holds the lock."""
    return type(node).__name__ == "_VirtualNode"


def transfer_locks(tree_cache: Any) -> list[tuple[Any, str]]:
    """Return the nodes that a hierarchical cache has locked for a running copy, with the kind of the copy."""
    found = []
    for name, what in (("ongoing_write_through", "a copy to the host"), ("ongoing_load_back", "a copy from the host")):
        for entry in getattr(tree_cache, name, {}).values():
            # From 0.5.17 on the entry is a record; before, it is a tuple that begins with the node, or the node.
            node = getattr(entry, "node_id", entry[0] if isinstance(entry, tuple) else entry)
            if getattr(entry, "lock_params", True) is not None:
                found.append((node, what))
    return found


class LockReceipt(NamedTuple):
    """The parts of a hybrid tree that a lock covers besides the path of full attention."""

    window_end: Any
    """Mark of the last node that the lock on the window covers, from its node upwards; None: all nodes up to the
    root."""
    window: bool
    """Whether the lock on the window is still held."""
    state: bool
    """Whether the recurrent state of its node is locked."""


@functools.cache
def has_lock_receipts() -> bool:
    """Whether a lock counts every node that it covers and has a receipt: from 0.5.20 on.

    Before, evicted nodes were skipped.
    """
    from sglang.srt.mem_cache.base_prefix_cache import IncLockRefResult

    fields = {field.name for field in dataclasses.fields(IncLockRefResult)}
    return "skipped_lock_components" in fields and "skip_lock_node_ids" not in fields


def lock_receipt(req: Any) -> LockReceipt:
    """Return the receipt of a request's lock, where `has_lock_receipts`."""
    if hasattr(req, "lock"):
        return receipt_parts(req.lock.receipt, released=req.lock.swa_released)
    return receipt_parts(req.lock_receipt, released=req.swa_prefix_lock_released)


def receipt_parts(receipt: Any, *, released: bool = False) -> LockReceipt:
    """Read the result of ``inc_lock_ref``. ``released``: whether the locks besides full attention were released."""
    skipped = {str(component) for component in receipt.skipped_lock_components}
    if hasattr(receipt, "component_lock_uuids"):
        ends = {str(component): end for component, end in receipt.component_lock_uuids.items()}
        end = ends.get("swa")
    else:
        end = receipt.swa_uuid_for_lock
    return LockReceipt(end, not released and "swa" not in skipped, not released and "mamba" not in skipped)


def window_freed(req: Any, page_size: int) -> tuple[int, int]:
    """Return the row positions [from, to) whose pages of the sliding window's pool this request has freed already."""
    kv = req.kv
    if hasattr(kv, "swa_dead_lo"):
        lo = int(kv.swa_dead_lo(page_size))
    else:
        # Up to 0.5.18 both are attributes of the request.
        lo = max(int(req.cache_protected_len), int(req.swa_evict_floor))
        lo = -(-lo // page_size) * page_size
    if hasattr(kv, "component_evicted_seqlens"):
        ends = {str(component): end for component, end in kv.component_evicted_seqlens.items()}
        hi = ends.get("swa", 0)
    else:
        hi = kv.swa_evicted_seqlen if kv is not None else 0
    return lo, max(lo, int(hi))


def state_slots(req: Any) -> list[int]:
    """Return the slots of recurrent states that the request holds: its own first, then those kept for the tree."""
    holder = req.kv if hasattr(req.kv, "mamba_pool_idx") else req
    slots = [] if holder.mamba_pool_idx is None else [int(holder.mamba_pool_idx)]
    kept = holder.mamba_ping_pong_track_buffer
    return slots + [slot for slot in (kept.tolist() if kept is not None else []) if slot != -1]


def spare_states(req_to_token_pool: Any) -> int | None:
    """Return the spare slots of recurrent states when every row takes its maximum; None without recurrent states.

    Admission counts rows and not states: SGLang makes the pool so large that rows cannot need more states than there
    are. A row holds at most the request's own state, those kept for the tree, and, by its lock, one in the tree; while
    a request moves its lock from one state to the next, both are held.
    """
    allocator = getattr(req_to_token_pool, "mamba_allocator", None)
    if allocator is None:
        return None
    kept = req_to_token_pool.mamba_ping_pong_track_buffer_size if req_to_token_pool.enable_mamba_extra_buffer else 0
    return max(0, int(allocator.size) - int(req_to_token_pool.size) * (2 + kept) - 1)


def state_pending(req: Any) -> bool:
    """Whether the request's own state is still to be copied or cleared, at the next forward."""
    holder = req.kv if hasattr(req.kv, "mamba_pool_idx") else req
    return holder.mamba_cow_src_index is not None or bool(holder.mamba_needs_clear)


def evict(tree_cache: Any, num_tokens: int | None) -> None:
    """Call the tree's own eviction; None evicts all evictable tokens."""
    if not hasattr(tree_cache, "evict") or getattr(tree_cache, "disable", False):
        return
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams

    count = num_tokens if num_tokens is not None else evictable_tokens(tree_cache)
    if count > 0:
        tree_cache.evict(EvictParams(num_tokens=count))


def evictable_tokens(tree_cache: Any) -> int:
    size = tree_cache.evictable_size()
    return size[0] if isinstance(size, tuple) else size
