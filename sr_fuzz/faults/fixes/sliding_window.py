"""Fixes of known bugs with sliding-window pools."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import prefix_len, refuse


@fault("refused_for_the_window", stands_for="window-pool-never-admitted.md", expected=())
def refused_for_the_window():
    """Without chunks, a prompt for which the window's pool has no slots is refused on arrival."""
    from sglang.srt.managers.scheduler import Scheduler

    def add(original, scheduler, req, *args, **kwargs):
        slots = getattr(scheduler.token_to_kv_pool_allocator, "size_swa", None)
        unchunked = scheduler.chunked_prefill_size is None or scheduler.chunked_prefill_size <= 0
        # As admission counts: the prompt in whole pages, and a page of overhead.
        pages = -(-len(req.origin_input_ids) // scheduler.page_size) + 1
        if unchunked and slots and pages * scheduler.page_size >= slots and not req.to_finish:
            triggered()
            refuse(req, "the prompt does not fit into the pool of the window")
        return original(scheduler, req, *args, **kwargs)

    return wrapped(Scheduler, "_add_request_to_queue", add)


@fault("cold_where_the_prefix_is_in_the_way", stands_for="window-prefix-never-resumed.md", expected=())
def cold_where_the_prefix_is_in_the_way():
    """A request that does not fit beside its own cached prefix, on an engine without others, starts without it."""
    from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams

    def add(original, adder, req, *args, **kwargs):
        result = original(adder, req, *args, **kwargs)
        others = adder.can_run_list or (adder.running_batch is not None and not adder.running_batch.is_empty())
        if result is AddReqResult.NO_TOKEN and not others and prefix_len(req) and adder.tree_cache.supports_swa():
            triggered()
            everything = adder.token_to_kv_pool_allocator.size_full
            adder.tree_cache.evict(EvictParams(num_tokens=everything, swa_num_tokens=everything))
        return result

    return wrapped(PrefillAdder, "add_one_req", add)


@fault("pure_window_frees_its_tokens", stands_for="pure-window-leaks-on-retraction.md", expected=(), releases="<0.5.20")
def pure_window_frees_its_tokens():
    """A request of which no token has left the window frees all that it generated, as from 0.5.20 on."""
    from sglang.srt.mem_cache.pure_swa_radix_cache import PureSWARadixCache

    def cache(original, tree, req, is_insert=True, **kwargs):
        # The record of the request's KV keeps it from 0.5.19 on.
        holder = req if hasattr(req, "swa_evict_floor") else req.kv
        if not is_insert and req.kv.swa_evicted_seqlen == 0 and holder.swa_evict_floor > 0:
            triggered()
            holder.swa_evict_floor = 0
        return original(tree, req, is_insert=is_insert, **kwargs)

    return wrapped(PureSWARadixCache, "cache_finished_req", cache)


@fault("chunks_that_the_window_can_lock", stands_for="chunk-stuck-in-a-tight-window-pool.md", expected=())
def chunks_that_the_window_can_lock():
    """Chunks are so short that the next one still finds a slot beside the nodes that the window's lock takes."""
    from sglang.srt.managers.schedule_policy import PrefillAdder

    def init(original, adder, *args, **kwargs):
        original(adder, *args, **kwargs)
        slots = getattr(adder.token_to_kv_pool_allocator, "size_swa", 0)
        if not slots or adder.rem_chunk_tokens is None or not adder.tree_cache.supports_swa():
            return
        page = adder.page_size
        # The lock takes less than a window and a chunk; admission leaves a page, and needs a token.
        room = slots - adder.tree_cache.sliding_window_size - page
        fitting = max(page, room // page * page)
        if fitting < adder.rem_chunk_tokens:
            triggered()
            adder.rem_chunk_tokens = fitting

    return wrapped(PrefillAdder, "__init__", init)
