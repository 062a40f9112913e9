"""Faults of memory: pages, rows, locks of the prefix tree, and the slots that KV is written to."""

from __future__ import annotations

from unittest.mock import patch

import torch

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import drop_lock, was_aborted
from sr_fuzz.sglang_api.request_state import kv_state

# Modules import `release_kv_cache` by name, so a patch in one module affects one case: in `scheduler` the abort between
# two chunks, in `schedule_batch` the retraction, in `batch_result_processor` the end of a request.


@fault("dropped_free", stands_for="KV pages leaked when a chunked prompt is aborted", expected=("kv_pages",))
def dropped_free():
    """A request that is aborted between two chunks never frees the pages of its last chunk."""
    from sglang.srt.managers import scheduler

    def release(original, req, tree_cache, *args, **kwargs):
        def free(slots: torch.Tensor) -> None:
            if len(slots):
                triggered()

        with patch.object(tree_cache.token_to_kv_pool_allocator, "free", free):
            return original(req, tree_cache, *args, **kwargs)

    return wrapped(scheduler, "release_kv_cache", release)


@fault("double_free", stands_for="KV pages freed twice by a request with a shared prefix", expected=("kv_pages",))
def double_free():
    """A retracted request whose prompt hit the prefix cache frees its last page twice."""
    from sglang.srt.managers import schedule_batch

    def release(original, req, tree_cache, *args, **kwargs):
        allocator = tree_cache.token_to_kv_pool_allocator
        honest, freed = allocator.free, []

        def free(slots: torch.Tensor) -> None:
            freed.append(slots.clone())
            honest(slots)

        with patch.object(allocator, "free", free):
            original(req, tree_cache, *args, **kwargs)
        slots = torch.cat(freed) if freed else torch.empty(0)
        if req.cached_tokens and len(slots):
            triggered()
            allocator.free(slots[-1:])

    return wrapped(schedule_batch, "release_kv_cache", release)


@fault("freed_too_early", stands_for="KV pages freed while the prefix tree still holds them", expected=("kv_pages",))
def freed_too_early():
    """A retraction starts to free one position too early, and so frees the last page of the request's prefix."""
    from sglang.srt.managers import schedule_batch

    def release(original, req, tree_cache, *args, **kwargs):
        kv = kv_state(req)
        slots = tree_cache.req_to_token_pool.req_to_token[kv.row, max(0, kv.protected - 1) : kv.protected].clone()
        original(req, tree_cache, *args, **kwargs)
        if req.output_ids:
            if len(slots):
                triggered()
            tree_cache.token_to_kv_pool_allocator.free(slots.to(torch.int64))

    return wrapped(schedule_batch, "release_kv_cache", release)


@fault("unfreed_row", stands_for="request rows leaked on an early end", expected=("request_rows",))
def unfreed_row():
    """A request that ends with its first token, in the prefill, does not free its row."""
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

    def free(original, pool, req):
        row = kv_state(req).row
        original(pool, req)
        if req.finished() and len(req.output_ids) == 1:
            triggered()
            pool.free_slots.remove(row)

    return wrapped(ReqToTokenPool, "free", free)


@fault("skipped_unlock", stands_for="tree locks that outlive their request", expected=("tree_locks",))
def skipped_unlock():
    """A running request that is aborted does not unlock its path in the prefix tree."""
    from sglang.srt.managers.scheduler_components import batch_result_processor

    def release(original, req, tree_cache, *args, **kwargs):
        if not was_aborted(req):
            return original(req, tree_cache, *args, **kwargs)
        with patch.object(tree_cache, "dec_lock_ref", lambda *args, **kwargs: triggered()):
            return original(req, tree_cache, *args, **kwargs)

    return wrapped(batch_result_processor, "release_kv_cache", release)


@fault("unlocked_prefix", stands_for="a prefix extended in the tree without its lock", expected=("tree_locks",))
def unlocked_prefix():
    """When a retracted request has been prefilled again, the lock does not move to the node with its whole prompt."""
    from sglang.srt.managers.scheduler import Scheduler

    def process(original, scheduler, batch, *args, **kwargs):
        original(scheduler, batch, *args, **kwargs)
        if batch.forward_mode.is_extend() and not getattr(scheduler.tree_cache, "disable", False):
            for req in batch.reqs:
                if req.retraction_count and kv_state(req) is not None and req is not scheduler.chunked_req:
                    triggered()
                    drop_lock(scheduler.tree_cache, req)

    return wrapped(Scheduler, "process_batch_result", process)


@fault("corrupted_page", stands_for="the KV of one request written over another's", expected=("kv_content",))
def corrupted_page():
    """A retracted request that decodes again in a batch with others writes its token into another request's page."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        resumed = [index for index, req in enumerate(batch.reqs) if req.retraction_count]
        if resumed and len(batch.reqs) > 1:
            triggered()
            slots = batch.out_cache_loc.clone()
            slots[resumed[0]] = slots[resumed[0] - 1]
            batch.out_cache_loc = slots

    return wrapped(ScheduleBatch, "prepare_for_decode", prepare)


@fault("wrong_page", stands_for="one request's KV served to another", expected=("kv_content", "oracle_output"))
def wrong_page():
    """If two prompts in one prefill have prefixes of different lengths, the longer one's last entry is off by one."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        held = [kv for req in batch.reqs if (kv := kv_state(req)) is not None]
        lengths = {kv.protected for kv in held}
        longest = max(held, key=lambda kv: kv.protected)
        if len(lengths) > 1 and longest.protected > 1:
            triggered()
            row = batch.req_to_token_pool.req_to_token[longest.row]
            row[longest.protected - 1] = row[longest.protected - 2]

    return wrapped(ScheduleBatch, "prepare_for_extend", prepare)
