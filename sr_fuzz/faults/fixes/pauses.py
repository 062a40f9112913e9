"""Fixes of known bugs with a paused engine."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped


@fault("abort_finds_who_waits", stands_for="abort-of-a-retracted-chunk-lost.md", expected=())
def abort_finds_who_waits():
    """The abort of a chunked request that was retracted before it was carried out is carried out in the queue."""
    from sglang.srt.managers.io_struct import AbortReq
    from sglang.srt.managers.scheduler import Scheduler

    def process(original, scheduler):
        req = scheduler._pending_chunked_abort_req
        if req is not None and scheduler.chunked_req is not req and req in scheduler.waiting_queue:
            triggered()
            scheduler._pending_chunked_abort_req = None
            scheduler.abort_request(AbortReq(rid=req.rid))
            return None
        return original(scheduler)

    return wrapped(Scheduler, "process_pending_chunked_abort", process)


@fault("abort_all_ends_a_pause_in_place", stands_for="pause-in-place-then-abort.md", expected=())
def abort_all_ends_a_pause_in_place():
    """Running requests of an engine that is paused in place are retracted by an abort of all, which then finds them."""
    from sglang.srt.managers.io_struct import PauseGenerationReqInput
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message, *args, **kwargs):
        # Under overlap a request that was just prefilled is in the last batch alone, and a chunked one perhaps in none.
        batches = [batch for batch in (scheduler.running_batch, scheduler.last_batch) if batch is not None]
        held = [req for batch in batches for req in batch.reqs] + [scheduler.chunked_req]
        if message.abort_all and scheduler._engine_paused and any(req and not req.finished() for req in held):
            triggered()
            scheduler.pause_generation(PauseGenerationReqInput(mode="retract"))
        return original(scheduler, message, *args, **kwargs)

    return wrapped(Scheduler, "abort_request", abort)


@fault("pause_stops_a_pipeline", stands_for="pause-does-not-pause-a-pipeline.md", expected=())
def pause_stops_a_pipeline():
    """A paused engine launches no batch in the loop of a pipeline either."""
    from sglang.srt.managers.schedule_batch import NextBatchPlan
    from sglang.srt.managers.scheduler import Scheduler

    def next_batch(original, scheduler, *, running_batch, **kwargs):
        # Only the loop of a pipeline keeps a running batch for each of its slots.
        if scheduler._engine_paused and hasattr(scheduler, "running_mbs"):
            triggered()
            return NextBatchPlan(batch_to_run=None, running_batch=running_batch)
        return original(scheduler, running_batch=running_batch, **kwargs)

    return wrapped(Scheduler, "get_next_batch_to_run", next_batch)
