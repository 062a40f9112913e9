"""Faults of the output stream: tokens, logprobs, finish messages."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import was_aborted


@fault("streamed_twice", stands_for="output repeated after a retraction", expected=("streams",))
def streamed_twice():
    """A retraction decreases the stream offset by one, so that one token is sent again."""
    from sglang.srt.managers.schedule_batch import Req

    def reset(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        if req.send_token_offset:
            triggered()
        req.send_token_offset = max(0, req.send_token_offset - 1)

    return wrapped(Req, "reset_for_retract", reset)


@fault("short_finish_reasons", stands_for="a message whose lists have different lengths", expected=("streams",))
def short_finish_reasons():
    """A message about a retracted request lacks the finish reason of the last request in the message."""
    from sglang.srt.managers.scheduler_components import output_streamer

    def build(original, *args, finished_reasons, retraction_counts, **kwargs):
        short = any(retraction_counts)
        if short:
            triggered()
        reasons = finished_reasons[:-1] if short else finished_reasons
        return original(*args, finished_reasons=reasons, retraction_counts=retraction_counts, **kwargs)

    return wrapped(output_streamer, "BatchTokenIDOutput", build)


@fault("lost_logprob", stands_for="logprobs cut at a retraction", expected=("streams",))
def lost_logprob():
    """A retraction drops the logprob of the last token."""
    from sglang.srt.managers.schedule_batch import Req

    def reset(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        holder = req.logprob if hasattr(req, "logprob") else req
        if req.return_logprob and holder.output_token_logprobs_val:
            triggered()
            holder.output_token_logprobs_val.pop()
            holder.output_token_logprobs_idx.pop()

    return wrapped(Req, "reset_for_retract", reset)


@fault("finish_sent_twice", stands_for="a request that ends twice under overlap", expected=("streams",))
def finish_sent_twice():
    """The end of an aborted request is not recorded, so the decode that was launched meanwhile reports it again."""
    from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

    def stream(original, streamer, reqs, *args, **kwargs):
        original(streamer, reqs, *args, **kwargs)
        for req in reqs:
            if was_aborted(req):
                triggered()
                req.finished_output = False

    return wrapped(SchedulerOutputStreamer, "stream_output", stream)


@fault("missed_stop", stands_for="outputs cut wrongly after a retraction", expected=("oracle_output",))
def missed_stop():
    """A request that was retracted no longer stops at a stop token or EOS."""
    from sglang.srt.managers.schedule_batch import Req

    def check(original, req, *args, **kwargs):
        stops = original(req, *args, **kwargs)
        if not stops or not req.retraction_count:
            return stops
        triggered()
        req.finished_reason = req.finished_len = None
        return False

    return wrapped(Req, "_check_token_based_finish", check)
