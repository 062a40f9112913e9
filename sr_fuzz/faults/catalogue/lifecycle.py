"""Faults of a request's life cycle in the scheduler: pauses, aborts, admission."""

from __future__ import annotations

from contextlib import contextmanager

from sr_fuzz.faults import fault, triggered, wrapped


@fault("advanced_while_paused", stands_for="results delivered while paused", expected=("paused_frozen",))
def advanced_while_paused():
    """The second step of an in-place pause delivers the result that was in flight under overlap scheduling."""
    from sglang.srt.managers.io_struct import PauseGenerationReqInput
    from sglang.srt.managers.scheduler import Scheduler

    def receive(original, scheduler, messages):
        original(scheduler, messages)
        in_flight = getattr(scheduler, "result_queue", ())
        just_paused = any(isinstance(message, PauseGenerationReqInput) for message in messages)
        if not scheduler._engine_paused or just_paused or not in_flight:
            return
        # A result without a token would change nothing now, and the event loop would miss it after the pause.
        if any(req is not scheduler.chunked_req and not req.finished() for req in in_flight[0][0].reqs):
            triggered()
            scheduler.process_batch_result(*in_flight.popleft())

    return wrapped(Scheduler, "process_input_requests", receive)


@fault("ran_while_paused", stands_for="a pause that does not hold", expected=("paused_frozen",))
@contextmanager
def ran_while_paused():
    """From the second step of a pause on, waiting requests are scheduled although the engine is paused."""
    from sglang.srt.managers.scheduler import Scheduler

    woken: list[bool] = []

    def receive(original, scheduler, messages):
        paused = scheduler._engine_paused
        original(scheduler, messages)
        if paused and scheduler._engine_paused and scheduler.waiting_queue:
            triggered()
            scheduler._engine_paused = False
            woken.append(True)

    def schedule(original, scheduler, *args, **kwargs):
        if woken:
            woken.clear()
            scheduler._engine_paused = True
        return original(scheduler, *args, **kwargs)

    with wrapped(Scheduler, "process_input_requests", receive), wrapped(Scheduler, "get_next_batch_to_run", schedule):
        yield


@fault("unpaused_by_abort", stands_for="a pause that another message ends", expected=("paused_frozen",))
def unpaused_by_abort():
    """An abort of a running request ends the pause."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        original(scheduler, message)
        if scheduler._engine_paused and any(req.to_finish is not None for req in scheduler.running_batch.reqs):
            triggered()
            scheduler._engine_paused = False

    return wrapped(Scheduler, "abort_request", abort)


@fault("lost_request", stands_for="requests lost across a pause", expected=("nobody_lost",))
def lost_request():
    """A pause in mode retract loses the request that was between two chunks."""
    from sglang.srt.managers.scheduler import Scheduler

    def pause(original, scheduler, message):
        chunked = scheduler.chunked_req
        original(scheduler, message)
        if message.mode == "retract" and chunked in scheduler.waiting_queue:
            triggered()
            scheduler.waiting_queue.remove(chunked)

    return wrapped(Scheduler, "pause_generation", pause)


@fault("starved_request", stands_for="starvation in admission", expected=("admission", "liveness"))
def starved_request():
    """A request that has been retracted twice is never admitted again."""
    from sglang.srt.managers.scheduler import Scheduler

    def prefill(original, scheduler, *args, **kwargs):
        passed_over = [req for req in scheduler.waiting_queue if req.retraction_count > 1]
        scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req not in passed_over]
        if passed_over:
            triggered()
        try:
            return original(scheduler, *args, **kwargs)
        finally:
            scheduler.waiting_queue = passed_over + scheduler.waiting_queue

    return wrapped(Scheduler, "get_new_batch_prefill", prefill)


@fault("unlucky_length", stands_for="prompts of some lengths are never admitted", expected=("admission", "liveness"))
def unlucky_length():
    """Admission takes a prompt of 5, 12, 19 … tokens for one that does not fit at the moment, in each step anew."""
    from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder

    def add(original, adder, req, *args, **kwargs):
        if len(req.origin_input_ids) % 7 == 5 and not req.output_ids:
            triggered()
            return AddReqResult.NO_TOKEN
        return original(adder, req, *args, **kwargs)

    return wrapped(PrefillAdder, "add_one_req", add)


@fault("ignored_abort", stands_for="aborts lost between two queues", expected=("aborts",))
def ignored_abort():
    """An abort skips requests that are only in the last batch: prefilled and not yet merged into the running batch."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        last = scheduler.last_batch.reqs if scheduler.last_batch is not None else []
        missed = [req for req in last if req not in scheduler.running_batch.reqs and req.to_finish is None]
        original(scheduler, message)
        for req in missed:
            if req.to_finish is not None:
                triggered()
            req.to_finish = None

    return wrapped(Scheduler, "abort_request", abort)


@fault("wrong_victim", stands_for="an abort that also hits another request", expected=("aborts",))
def wrong_victim():
    """An abort of a running request also aborts another request of its batch."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        original(scheduler, message)
        reqs = scheduler.running_batch.reqs
        marks = [req.to_finish for req in reqs if req.to_finish is not None]
        spared = [req for req in reqs if req.to_finish is None]
        if marks and spared:
            triggered()
            spared[0].to_finish = marks[0]

    return wrapped(Scheduler, "abort_request", abort)


@fault("late_abort", stands_for="aborts reported late, with extra tokens", expected=("aborts",))
def late_abort():
    """A running request checks for its abort only at every eighth output token."""
    from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req

    def update(original, req, *args, **kwargs):
        mark = req.to_finish
        if not isinstance(mark, FINISH_ABORT) or len(req.output_ids) % 8 == 0:
            return original(req, *args, **kwargs)
        triggered()
        req.to_finish = None
        original(req, *args, **kwargs)
        if not req.finished():
            req.to_finish = mark

    return wrapped(Req, "update_finish_state", update)
