"""Fixes of known bugs in admission."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import refuse


@fault("refused_at_the_door", stands_for="paged-prompt-never-admitted.md, embedding-too-long.md", expected=())
def refused_at_the_door():
    """A prompt that leaves no room for one page of overhead can never be admitted, and is refused on arrival."""
    from sglang.srt.managers.scheduler import Scheduler

    def add(original, scheduler, req, *args, **kwargs):
        length, overhead = len(req.origin_input_ids), scheduler.page_size if scheduler.page_size > 1 else 0
        pool = scheduler.max_total_num_tokens
        # Admission refuses a prompt that, with the page of overhead, fills the pool exactly.
        never = length >= scheduler.max_req_input_len or length > pool or (overhead and length + overhead >= pool)
        if never and req.to_finish is None:
            triggered()
            refuse(req, "the prompt does not fit")
        return original(scheduler, req, *args, **kwargs)

    return wrapped(Scheduler, "_add_request_to_queue", add)


@fault("output_that_fits", stands_for="ignore-eos-never-admitted.md", expected=())
def output_that_fits():
    """Without a prefix tree the output is clipped to the length that admission grants, which is one token less."""
    from sglang.srt.managers.scheduler import Scheduler

    def clip(original, scheduler, req, *args, **kwargs):
        original(scheduler, req, *args, **kwargs)
        params = req.sampling_params
        most = scheduler.max_total_num_tokens - 2 * scheduler.page_size - 1 - len(req.origin_input_ids)
        if scheduler.tree_cache.disable and params.ignore_eos and params.max_new_tokens > most:
            triggered()
            params.max_new_tokens = max(0, most)

    return wrapped(Scheduler, "init_req_max_new_tokens", clip)


@fault("one_chunked_request", stands_for="two-chunked-requests.md", expected=())
def one_chunked_request():
    """A request with ``ignore_eos`` is not chunked if the batch already has a chunked request."""
    from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder

    def add(original, adder, req, *args, **kwargs):
        if adder.new_chunked_req is not None:
            triggered()
            return AddReqResult.OTHER
        return original(adder, req, *args, **kwargs)

    return wrapped(PrefillAdder, "add_one_req_ignore_eos", add)
