"""Fixes of known bugs in speculative decoding."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped


@fault("stop_before_abort", stands_for="abort-passes-over-a-stop.md", expected=())
def stop_before_abort():
    """The tokens of the last step of an aborted request are truncated where it would have ended without the abort."""
    from sglang.srt.managers.schedule_batch import Req

    def update(original, req, *args, **kwargs):
        pending = req.to_finish
        if pending is None or req.finished():
            return original(req, *args, **kwargs)
        req.to_finish = None
        original(req, *args, **kwargs)
        if req.finished():
            triggered()
        req.finished_reason = pending
        return None

    return wrapped(Req, "update_finish_state", update)


@fault("output_beside_drafts", stands_for="aborted-for-room-for-drafts.md", expected=())
def output_beside_drafts():
    """The output is clipped so that there is room for the drafts after its last token."""
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode

    def clip(original, scheduler, req, *args, **kwargs):
        original(scheduler, req, *args, **kwargs)
        if scheduler.spec_algorithm.is_none():
            return
        room = scheduler.max_total_num_tokens - get_alloc_reserve_per_decode() - (scheduler.page_size - 1)
        most = room - len(req.origin_input_ids)
        if req.sampling_params.max_new_tokens > most > 0:
            triggered()
            req.sampling_params.max_new_tokens = most

    return wrapped(Scheduler, "init_req_max_new_tokens", clip)
