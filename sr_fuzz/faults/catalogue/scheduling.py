"""Faults of scheduling: chunks, retraction, order, admission, and the numbers that are sent with an answer.

As in `sr_fuzz.faults.catalogue`, a fault is triggered under a condition that a schedule must create, and the patched
functions exist in SGLang 0.5.16 to 0.5.23.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sr_fuzz.faults import fault, triggered, wrapped

# -- chunks ----------------------------------------------------------------------------------------------------


@fault("forgotten_rest", stands_for="a token sampled from a prefill that was not finished", expected=("chunks",))
def forgotten_rest():
    """A request whose first chunk shares its batch with a complete prompt is not recorded as the chunked request."""
    from sglang.srt.managers.scheduler import Scheduler

    def prefill(original, scheduler, *args, **kwargs):
        plan = original(scheduler, *args, **kwargs)
        batch, chunked = plan.batch_to_run, scheduler.chunked_req
        if batch is not None and len(batch.reqs) > 1 and chunked is batch.reqs[-1]:
            triggered()
            scheduler.chunked_req = batch.chunked_req = None
            chunked.inflight_middle_chunks -= 1
        return plan

    return wrapped(Scheduler, "get_new_batch_prefill", prefill)


@fault("miscounted_chunk", stands_for="KV accounting off by one between chunks", expected=("chunks", "kv_pages"))
def miscounted_chunk():
    """A chunk that shares its batch with another prefill counts one token too few as committed."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        if batch.chunked_req is not None and len(batch.reqs) > 1:
            triggered()
            req = batch.chunked_req
            holder = req.kv if hasattr(req.kv, "req_pool_idx") else req
            holder.kv_committed_len -= 1

    return wrapped(ScheduleBatch, "prepare_for_extend", prepare)


# -- retraction ------------------------------------------------------------------------------------------------


@fault("late_requeue", stands_for="a retracted request that is in no queue", expected=("retraction", "nobody_lost"))
@contextmanager
def late_requeue():
    """A request that is retracted for lack of memory is requeued one step too late."""
    from sglang.srt.managers.scheduler import Scheduler

    late: list[Any] = []

    def queue(original, scheduler, req, *args, **kwargs):
        if req.retraction_count and not scheduler._engine_paused:
            triggered()
            late.append(req)
        else:
            original(scheduler, req, *args, **kwargs)

    def receive(original, scheduler, messages):
        while late:
            scheduler.waiting_queue.append(late.pop(0))
        return original(scheduler, messages)

    with wrapped(Scheduler, "_add_request_to_queue", queue), wrapped(Scheduler, "process_input_requests", receive):
        yield


@fault("lost_output", stands_for="outputs cut at a retraction", expected=("retraction",))
def lost_output():
    """A retracted request starts over: the output that it had generated and sent is dropped."""
    from sglang.srt.managers.schedule_batch import Req

    def reset(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        if req.output_ids:
            triggered()
        del req.output_ids[:]

    return wrapped(Req, "reset_for_retract", reset)


@fault("wrong_length", stands_for="a length checked in two ways", expected=("oracle_output", "nobody_lost"))
def wrong_length():
    """A request that was retracted may generate one token more than it asked for."""
    from sglang.srt.managers.schedule_batch import Req

    def update(original, req, *args, **kwargs):
        limit = req.sampling_params.max_new_tokens
        req.sampling_params.max_new_tokens = limit + (req.retraction_count > 0)
        if req.retraction_count and len(req.output_ids) == limit:
            triggered()
        try:
            return original(req, *args, **kwargs)
        finally:
            req.sampling_params.max_new_tokens = limit

    return wrapped(Req, "update_finish_state", update)


# -- order and admission ---------------------------------------------------------------------------------------


@fault("needless_preemption", stands_for="preemption below the threshold", expected=("priority",), sets=("priority",))
def needless_preemption():
    """A request with the same priority as a running request may preempt it."""
    from sglang.srt.managers.schedule_policy import PrefillAdder

    def preempt(original, adder, req, *args, **kwargs):
        if original(adder, req, *args, **kwargs):
            return True
        with patch.object(adder, "priority_scheduling_preemption_threshold", -1):
            preempted = original(adder, req, *args, **kwargs)
        if preempted:
            triggered()
        return preempted

    return wrapped(PrefillAdder, "preempt_to_schedule", preempt)


@fault("inverted_priority", stands_for="priority accounting gone wrong", expected=("priority",), sets=("priority",))
def inverted_priority():
    """While a retracted request waits, the request with the lowest priority is scheduled first."""
    from sglang.srt.managers.schedule_policy import SchedulePolicy

    def sort(original, policy, waiting_queue, *args, **kwargs):
        original(policy, waiting_queue, *args, **kwargs)
        if len({req.priority for req in waiting_queue}) > 1 and any(req.retraction_count for req in waiting_queue):
            triggered()
            waiting_queue.reverse()

    return wrapped(SchedulePolicy, "calc_priority", sort)


@fault("overtaking", stands_for="starvation in admission", expected=("priority",))
def overtaking():
    """With three or more requests in the queue, the newest one is scheduled first."""
    from sglang.srt.managers.schedule_policy import SchedulePolicy

    def sort(original, policy, waiting_queue, *args, **kwargs):
        original(policy, waiting_queue, *args, **kwargs)
        if len(waiting_queue) > 2:
            triggered()
            waiting_queue.insert(0, waiting_queue.pop())

    return wrapped(SchedulePolicy, "calc_priority", sort)


@fault("slow_admission", stands_for="a wait although there is room", expected=("admission",), sets=("priority",))
def slow_admission():
    """A retracted request waits as long as any request runs."""
    from sglang.srt.managers.scheduler import Scheduler

    def prefill(original, scheduler, running, *args, **kwargs):
        busy = not running.is_empty()
        passed_over = [req for req in scheduler.waiting_queue if busy and req.retraction_count]
        scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req not in passed_over]
        if passed_over:
            triggered()
        try:
            return original(scheduler, running, *args, **kwargs)
        finally:
            scheduler.waiting_queue = passed_over + scheduler.waiting_queue

    return wrapped(Scheduler, "get_new_batch_prefill", prefill)


# -- seen only when two runs are compared ------------------------------------------------------


@fault("shuffled_queue", stands_for="an order that hangs on a set of objects", expected=("determinism",))
def shuffled_queue():
    """The waiting queue is sorted by numbers that differ in each run."""
    from sglang.srt.managers.schedule_policy import SchedulePolicy

    def sort(original, policy, waiting_queue, *args, **kwargs):
        original(policy, waiting_queue, *args, **kwargs)
        if len(waiting_queue) > 1:
            triggered()
            waiting_queue.sort(key=lambda req: os.urandom(8))

    return wrapped(SchedulePolicy, "calc_priority", sort)


@fault("shared_limit", stands_for="a parameter taken from a batch mate", expected=("schedule_dependent_output",))
def shared_limit():
    """Two requests that are prefilled together both end at the length of the first one."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        for req in batch.reqs[1:]:
            triggered()
            req.sampling_params.max_new_tokens = batch.reqs[0].sampling_params.max_new_tokens

    return wrapped(ScheduleBatch, "prepare_for_extend", prepare)


# -- numbers and replies ---------------------------------------------------------------------------------------


@fault("cached_twice", stands_for="cached tokens counted again after a retraction", expected=("usage",))
def cached_twice():
    """A retracted request that hits its own prefix in the cache counts it as cached tokens."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        again = [req for req in batch.reqs if req.retracted_stain]
        counted = [req.cached_tokens for req in again]
        for req in again:
            req.retracted_stain = False
        original(batch, *args, **kwargs)
        if counted != [req.cached_tokens for req in again]:
            triggered()

    return wrapped(ScheduleBatch, "prepare_for_extend", prepare)


@fault("counted_in_prompt", stands_for="a usage that counts output as prompt", expected=("usage",))
def counted_in_prompt():
    """After a retraction the prompt of the request is reported one token too long."""
    from sglang.srt.managers.scheduler_components import output_streamer

    def build(original, *args, prompt_tokens, retraction_counts, **kwargs):
        if any(retraction_counts):
            triggered()
        longer = [count + bool(retracted) for count, retracted in zip(prompt_tokens, retraction_counts)]
        return original(*args, prompt_tokens=longer, retraction_counts=retraction_counts, **kwargs)

    return wrapped(output_streamer, "BatchTokenIDOutput", build)


@fault("input_logprobs_twice", stands_for="logprobs repeated after a retraction", expected=("usage",))
def input_logprobs_twice():
    """The input logprobs of a retracted request are sent again."""
    from sglang.srt.managers.schedule_batch import Req

    def reset(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        if req.input_logprob_sent:
            triggered()
        req.input_logprob_sent = False

    return wrapped(Req, "reset_for_retract", reset)


@fault("silent_refusal", stands_for="a control request that is never answered", expected=("control_replies",))
def silent_refusal():
    """A refused flush gets no reply."""
    from sglang.srt.managers.scheduler_components.flush_wrapper import SchedulerFlushWrapper

    def handle(original, wrapper, message):
        reply = original(wrapper, message)
        if reply is None or reply.success:
            return reply
        triggered()
        return None

    return wrapped(SchedulerFlushWrapper, "handle", handle)


@fault("gauge_that_only_rises", stands_for="load counters that are not taken back", expected=("load",))
@contextmanager
def gauge_that_only_rises():
    """The reported number of used tokens never decreases."""
    from sglang.srt.managers.scheduler_components.pool_stats_observer import SchedulerPoolStatsObserver

    highest: list[Any] = []

    def stats(original, observer):
        now = original(observer)
        if not highest or now.full_num_used > highest[0].full_num_used:
            highest[:] = [now]
        elif now.full_num_used < highest[0].full_num_used:
            triggered()
        return highest[0]

    with wrapped(SchedulerPoolStatsObserver, "get_pool_stats", stats):
        yield


@fault("flush_while_busy", stands_for="a flush that takes what is in use", expected=("kv_pages", "request_rows"))
def flush_while_busy():
    """A flush does not check whether a request runs."""
    from sglang.srt.managers.scheduler import Scheduler

    def flush(original, scheduler, *args, **kwargs):
        if not scheduler.is_fully_idle():
            triggered()
        with patch.object(scheduler, "is_fully_idle", lambda *args, **kwargs: True):
            return original(scheduler, *args, **kwargs)

    return wrapped(Scheduler, "flush_cache", flush)
