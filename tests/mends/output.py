"""Known bugs of what is sent, mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sr_fuzz.faults import fault, triggered, wrapped


@fault("embedding_once", stands_for="embedding-ends-twice.md", expected=())
def embedding_once():
    """An embedding request that was answered by an abort is not answered again when its chunk comes in."""
    return _answered_once()


@fault("nothing_after_the_end", stands_for="empty-message-after-end.md", expected=())
def nothing_after_the_end():
    """A request that was answered by an abort gets no message for the result that was in flight."""
    return _answered_once()


@contextmanager
def _answered_once() -> Iterator[None]:
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

    answered: set[str] = set()

    def release(original, scheduler, req, *args, **kwargs):
        answered.add(req.rid)
        return original(scheduler, req, *args, **kwargs)

    def send_abort(original, scheduler, message, *args, **kwargs):
        answered.add(message.rid)
        return original(scheduler, message, *args, **kwargs)

    def stream(original, streamer, reqs, *args, **kwargs):
        left = [req for req in reqs if req.rid not in answered]
        if len(left) < len(reqs):
            triggered()
        return original(streamer, left, *args, **kwargs)

    with (
        wrapped(Scheduler, "_release_aborted_request", release),
        wrapped(Scheduler, "send_abort_output", send_abort),
        wrapped(SchedulerOutputStreamer, "stream_output", stream),
    ):
        yield
