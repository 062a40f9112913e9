"""Fixes of known bugs in batch scheduling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import prefix_len
from sr_fuzz.sglang_api.request_state import evictable_tokens


@fault("empty_batch_is_not_full", stands_for="admission-stays-shut.md", expected=())
def empty_batch_is_not_full():
    """An empty batch does not count as full, as from 0.5.22 on."""
    from sglang.srt.managers.scheduler import Scheduler

    def admit(original, scheduler, *, running_batch, **kwargs):
        if running_batch.is_empty() and running_batch.batch_is_full:
            triggered()
            running_batch.batch_is_full = False
        return original(scheduler, running_batch=running_batch, **kwargs)

    return wrapped(Scheduler, "_get_new_batch_prefill_raw", admit)


@fault("preempted_waits_again", stands_for="preempted-request-lost.md", expected=())
@contextmanager
def preempted_waits_again() -> Iterator[None]:
    """A request that was preempted for a request that then did not fit is requeued, as from 0.5.22 on."""
    from sglang.srt.managers.schedule_policy import PrefillAdder
    from sglang.srt.managers.scheduler import Scheduler

    adders: list[PrefillAdder] = []

    def preempt(original, adder, *args, **kwargs):
        adders.append(adder)
        return original(adder, *args, **kwargs)

    def admit(original, scheduler, *args, **kwargs):
        adders.clear()
        result = original(scheduler, *args, **kwargs)
        for req in adders[-1].preempt_list if adders else ():
            if result[0] is None and req not in scheduler.waiting_queue:
                triggered()
                scheduler._add_request_to_queue(req)
        return result

    with (
        wrapped(PrefillAdder, "preempt_to_schedule", preempt),
        wrapped(Scheduler, "_get_new_batch_prefill_raw", admit),
    ):
        yield


@fault("mixed_with_room", stands_for="mixed-batch-out-of-memory.md", expected=())
@contextmanager
def mixed_with_room() -> Iterator[None]:
    """Running requests without room besides the prefill are left out of a mixed batch, as from 0.5.22 on."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler

    current: list[tuple[Scheduler, ScheduleBatch]] = []

    def admit(original, scheduler, *, running_batch, **kwargs):
        mixed = scheduler.is_mixed_chunk
        current.append((scheduler, running_batch))
        try:
            return original(scheduler, running_batch=running_batch, **kwargs)
        finally:
            current.pop()
            scheduler.is_mixed_chunk = mixed

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        scheduler, running = current[-1] if current else (None, None)
        if scheduler and scheduler.is_mixed_chunk and not running.is_empty() and not running.check_decode_mem():
            triggered()
            scheduler.is_mixed_chunk = False

    with (
        wrapped(Scheduler, "_get_new_batch_prefill_raw", admit),
        wrapped(ScheduleBatch, "prepare_for_extend", prepare),
    ):
        yield


@fault("chunk_waits_for_room", stands_for="chunk-without-room.md", expected=())
def chunk_waits_for_room():
    """A chunked request without room for its next chunk is parked until there is room."""
    from sglang.srt.managers.schedule_policy import PrefillAdder

    def add(original, adder, req, *args, **kwargs):
        pool = adder.token_to_kv_pool_allocator
        wanted = min(adder.rem_chunk_tokens, len(req.full_untruncated_fill_ids) - prefix_len(req))
        # No token is left after the reservation for other requests, which is fractional, but the chunk may still fit.
        if int(adder.rem_total_tokens) <= 0 and wanted > pool.available_size() + evictable_tokens(adder.tree_cache):
            triggered()
            return req
        return original(adder, req, *args, **kwargs)

    return wrapped(PrefillAdder, "add_chunked_req", add)


@fault("admitted_has_a_place", stands_for="retracted-into-a-full-queue.md", expected=())
def admitted_has_a_place():
    """The limit of the queue is for new requests; one that was admitted returns to it whatever its length."""
    from sglang.srt.managers.scheduler import Scheduler

    def limit(original, scheduler, req, *args, **kwargs):
        admitted = bool(req.output_ids) or req.is_retracted
        most = scheduler.max_queued_requests
        if admitted and most is not None and len(scheduler.waiting_queue) >= most:
            triggered()
            return False
        return original(scheduler, req, *args, **kwargs)

    return wrapped(Scheduler, "_abort_on_queued_limit", limit)
