"""Faults of hybrid caches: the pages of a sliding window, and the slots of recurrent states."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import was_aborted
from sr_fuzz.sglang_api.node_handles import resolve_node
from sr_fuzz.sglang_api.request_state import kv_state, lock_node, window_freed

# -- sliding window --------------------------------------------------------------------------------------------


@fault("window_leaked", stands_for="window pages leaked by a retraction", expected=("kv_pages",), sets=("swa",))
def window_leaked():
    """A request that is retracted when it has output never frees one page of the window's pool."""
    from sglang.srt.managers import schedule_batch

    def release(original, req, tree_cache, *args, **kwargs):
        original(req, tree_cache, *args, **kwargs)
        allocator = tree_cache.token_to_kv_pool_allocator
        if req.output_ids and allocator.swa_attn_allocator.alloc(allocator.page_size) is not None:
            triggered()

    return wrapped(schedule_batch, "release_kv_cache", release)


@fault(
    "window_freed_early", stands_for="a page freed that the window still sees", expected=("kv_pages",), sets=("swa",)
)
def window_freed_early():
    """Whenever positions leave the window, the next position, which is still inside, is freed with them."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def evict(original, batch, *args, **kwargs):
        allocator = batch.token_to_kv_pool_allocator
        before = {id(req): window_freed(req, allocator.page_size)[1] for req in batch.reqs if kv_state(req)}
        original(batch, *args, **kwargs)
        for req in batch.reqs:
            end = window_freed(req, allocator.page_size)[1] if kv_state(req) else 0
            if end > before.get(id(req), end):
                triggered()
                row = batch.req_to_token_pool.req_to_token[kv_state(req).row]
                allocator.free_swa(row[end : end + allocator.page_size].long())

    return wrapped(ScheduleBatch, "maybe_evict_swa", evict)


@fault(
    "window_lock_lost", stands_for="locks on the window dropped too early", expected=("window_locks",), sets=("swa",)
)
def window_lock_lost():
    """When a retracted request has been prefilled again, its tree node loses the lock on the window."""
    from sglang.srt.managers.scheduler import Scheduler

    done: set[int] = set()

    def process(original, scheduler, batch, result, *args, **kwargs):
        original(scheduler, batch, result, *args, **kwargs)
        for req in batch.reqs:
            if not req.retraction_count or id(req) in done or req.finished() or lock_node(req) is None:
                continue
            node = resolve_node(scheduler.tree_cache, lock_node(req))
            # A model with sliding windows only has a tree without components.
            if hasattr(node, "component_data") and node.component_data[1].lock_ref:
                done.add(id(req))
                triggered()
                node.component_data[1].lock_ref -= 1

    return wrapped(Scheduler, "process_batch_result", process)


# -- recurrent states ------------------------------------------------------------------------------------------


@fault("state_leaked", stands_for="state slots leaked on an abort", expected=("mamba_slots",), sets=("mamba",))
def state_leaked():
    """A running request that is aborted never frees one slot of its state."""
    from sglang.srt.mem_cache.memory_pool import HybridReqToTokenPool

    def free(original, pool, req, *args, **kwargs):
        original(pool, req, *args, **kwargs)
        if was_aborted(req) and req.output_ids:
            triggered()
            pool.mamba_allocator.alloc(1)

    return wrapped(HybridReqToTokenPool, "free_mamba_cache", free)


@fault("state_freed_twice", stands_for="state slots freed twice", expected=("mamba_slots",), sets=("mamba",))
def state_freed_twice():
    """A retraction frees the request's state twice."""
    from sglang.srt.mem_cache.memory_pool import HybridReqToTokenPool

    def free(original, pool, req, *args, **kwargs):
        holder = req.kv if hasattr(req.kv, "mamba_pool_idx") else req
        slot = holder.mamba_pool_idx.unsqueeze(0).clone()
        original(pool, req, *args, **kwargs)
        if req.output_ids and not req.finished():
            triggered()
            pool.mamba_allocator.free(slot)

    return wrapped(HybridReqToTokenPool, "free_mamba_cache", free)


@fault(
    "state_not_copied", stands_for="a prefix hit without its state", expected=("mamba_content",), sets=("mamba",)
)
def state_not_copied():
    """A request whose prompt matches a prefix continues from the previous content of its state slot."""
    from sglang.srt.mem_cache.memory_pool import MambaPool

    def copy(original, pool, *args, **kwargs):
        triggered()

    return wrapped(MambaPool, "copy_from", copy)


@fault("state_not_cleared", stands_for="a state left by another request", expected=("mamba_content",), sets=("mamba",))
def state_not_cleared():
    """A new request starts from the state that the previous request left in its slot."""
    from sglang.srt.mem_cache.memory_pool import MambaPool

    def clear(original, pool, *args, **kwargs):
        triggered()

    return wrapped(MambaPool, "clear_slots", clear)
