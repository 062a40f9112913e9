"""Fixes of known bugs in the output stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sr_fuzz.faults import fault, triggered, wrapped


@fault("embedding_once", stands_for="embedding-ends-twice.md", expected=())
@contextmanager
def embedding_once() -> Iterator[None]:
    """A chunked request that was answered by an abort is not answered again when the result of its chunk arrives."""
    from sglang.srt.managers.scheduler import Scheduler

    answered: set[str] = set()

    def process(original, scheduler):
        pending = scheduler._pending_chunked_abort_req
        original(scheduler)
        if pending is not None and scheduler._pending_chunked_abort_req is None:
            answered.add(pending.rid)

    with wrapped(Scheduler, "process_pending_chunked_abort", process), _nothing_more_for(answered):
        yield


@fault("nothing_after_the_end", stands_for="empty-message-after-end.md", expected=())
@contextmanager
def nothing_after_the_end() -> Iterator[None]:
    """No message is sent for the in-flight result of a request that is aborted for lack of memory."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    answered: set[str] = set()

    def retract(original, batch, *args, **kwargs):
        retracted, ratio, aborted = original(batch, *args, **kwargs)
        answered.update(req.rid for req in aborted)
        return retracted, ratio, aborted

    with wrapped(ScheduleBatch, "retract_decode", retract), _nothing_more_for(answered):
        yield


@contextmanager
def _nothing_more_for(answered: set[str]) -> Iterator[None]:
    from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

    def stream(original, streamer, reqs, *args, **kwargs):
        left = [req for req in reqs if req.rid not in answered]
        if len(left) < len(reqs):
            triggered()
        return original(streamer, left, *args, **kwargs)

    with wrapped(SchedulerOutputStreamer, "stream_output", stream):
        yield


@fault("time_out_keeps_its_reason", stands_for="time-out-of-a-chunk-without-a-reason.md", expected=())
@contextmanager
def time_out_keeps_its_reason() -> Iterator[None]:
    """The abort reason of a chunked request is included in its answer."""
    from sglang.srt.managers import scheduler as module

    reasons: dict[str, Any] = {}

    def abort(original, scheduler, message):
        original(scheduler, message)
        pending = scheduler._pending_chunked_abort_req
        if pending is not None and message.finished_reason is not None and pending.rid == message.rid:
            reasons[message.rid] = message.finished_reason

    def answer(original, req, finished_reason=None):
        if finished_reason is None and req.rid in reasons:
            triggered()
            finished_reason = reasons[req.rid]
        return original(req, finished_reason=finished_reason)

    with wrapped(module.Scheduler, "abort_request", abort), wrapped(module, "_make_abort_req", answer):
        yield


@fault("first_logprob_is_sent", stands_for="lost-first-logprob.md", expected=())
def first_logprob_is_sent():
    """A request without a token has sent no logprob of one, as for a retracted request from 0.5.19 on."""
    from sglang.srt.managers.scheduler_components.output_streamer import _GenerationStreamAccumulator

    def accept(original, accumulator, *, req, **kwargs):
        result = original(accumulator, req=req, **kwargs)
        if not req.output_ids and not req.finished() and req.send_output_token_logprobs_offset > 0:
            triggered()
            req.send_output_token_logprobs_offset = 0
        return result

    return wrapped(_GenerationStreamAccumulator, "accept", accept)
