"""Fixes of known bugs in disaggregation."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.sglang_api.request_state import kv_state


@fault("newest_token_given_back", stands_for="decode-half-newest-token-lost.md", expected=())
def newest_token_given_back():
    """A request that ends before its re-bootstrap is complete gets its newest token back before its answer is sent."""
    from sglang.srt.disaggregation import decode

    def prepare_abort(original, req, *args, **kwargs):
        newest = req.pd_rebootstrap_forced_output_id
        if newest is not None:
            triggered()
            req.output_ids.append(newest)
            req.pd_rebootstrap_forced_output_id = None
        return original(req, *args, **kwargs)

    return wrapped(decode, "prepare_abort", prepare_abort)


@fault("output_counted_once", stands_for="decode-half-retracted-never-readmitted.md", expected=())
def output_counted_once():
    """Admission requires room for the prompt and ``max_new_tokens``, which include the output so far."""
    from sglang.srt.disaggregation.decode import DecodePreallocQueue

    def length(original, *args):
        req = args[-1]  # a static method, which is called as a bound method once it is patched
        if req.output_ids and original(req) > len(req.origin_input_ids):
            triggered()
        return len(req.origin_input_ids)

    return wrapped(DecodePreallocQueue, "_rebootstrap_prefill_len", length)


@fault("flush_spares_who_waits", stands_for="paused-flush-frees-waiting-kv.md", expected=())
def flush_spares_who_waits():
    """A paused engine is not idle while a request in the queue holds KV, as from 0.5.22 on."""
    from sglang.srt.managers.scheduler import Scheduler

    def idle(original, scheduler, *args, **kwargs):
        found = original(scheduler, *args, **kwargs)
        if found and any(kv_state(req) is not None for req in scheduler.waiting_queue):
            triggered()
            return False
        return found

    return wrapped(Scheduler, "is_fully_idle", idle)


@fault("refused_before_bootstrap", stands_for="prefill-half-answers-refused.md", expected=())
def refused_before_bootstrap():
    """A prefill half immediately answers a prompt that was refused on arrival, as from 0.5.20 on."""
    from sglang.srt.disaggregation.prefill import PrefillBootstrapQueue

    def add(original, queue, req, *args, **kwargs):
        if req.to_finish is None:
            return original(queue, req, *args, **kwargs)
        triggered()
        req.finished_reason = req.to_finish
        queue.scheduler.output_streamer.stream_output([req], req.return_logprob)

    return wrapped(PrefillBootstrapQueue, "add", add)
