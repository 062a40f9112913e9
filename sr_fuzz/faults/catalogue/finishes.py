"""Faults that end the scheduler: it raises, hangs or dies."""

from __future__ import annotations

import os
import resource

from sr_fuzz.faults import fault, triggered, wrapped


@fault("missed_retraction", stands_for="a crash where it should have retracted", expected=("exception",))
def missed_retraction():
    """With three or more running requests, the check whether the next decode fits succeeds, so SGLang raises."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def check(original, batch, *args, **kwargs):
        fits = original(batch, *args, **kwargs)
        if not fits and len(batch.reqs) >= 3:
            triggered()
            return True
        return fits

    return wrapped(ScheduleBatch, "check_decode_mem", check)


@fault("endless_retraction", stands_for="a loop that waits for memory that no request frees", expected=("hang",))
def endless_retraction():
    """With three or more running requests, a retraction waits for memory instead of retracting a request."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def retract(original, batch, *args, **kwargs):
        while len(batch.reqs) >= 3 and not batch.check_decode_mem():
            triggered()
        return original(batch, *args, **kwargs)

    return wrapped(ScheduleBatch, "retract_decode", retract)


@fault("dead_on_abort", stands_for="the process dies, as after an illegal memory access", expected=("crash",))
def dead_on_abort():
    """An abort of all requests that arrives between two chunks kills the process."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        if message.abort_all and scheduler.chunked_req is not None:
            triggered()
            # No core file: it would take some gigabytes.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.abort()
        return original(scheduler, message)

    return wrapped(Scheduler, "abort_request", abort)
