"""The seeded faults: each stands for a class of bugs that SGLang's scheduler has had, and misbehaves like one of them.

A fault strikes under a condition that a schedule must bring about (a retraction, an abort between two chunks, a shared
prefix …), not on every call: one that strikes at once would say nothing about the fuzzer. The functions patched exist
in SGLang 0.5.16 to 0.5.23. SGLang is imported only when a fault is entered.

`FAULTS` lists them all; on the command line one is ``tests.faults.seeded:double_free``.
"""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from unittest.mock import patch

import torch

from sr_fuzz.faults import Fault, fault
from sr_fuzz.versions import kv_state
from tests.faults.patching import drop_lock, was_aborted, wrapped

# Modules import `release_kv_cache` by name, so patching it in one of them strikes one occasion: in `scheduler` the
# abort between two chunks, in `schedule_batch` retraction, in `batch_result_processor` the end of a request.


# -- memory ----------------------------------------------------------------------------------------------------


@fault("dropped_free", stands_for="KV pages leaked when a chunked prompt is aborted", expected=("kv_pages",))
def dropped_free():
    """A request that is aborted between two chunks keeps the pages of its last chunk for ever."""
    from sglang.srt.managers import scheduler

    def release(original, req, tree_cache, *args, **kwargs):
        with patch.object(tree_cache.token_to_kv_pool_allocator, "free", lambda slots: None):
            return original(req, tree_cache, *args, **kwargs)

    return wrapped(scheduler, "release_kv_cache", release)


@fault("double_free", stands_for="KV pages freed twice by a request with a shared prefix", expected=("kv_pages",))
def double_free():
    """A retracted request whose prompt hit the prefix cache frees its last page twice."""
    from sglang.srt.managers import schedule_batch

    def release(original, req, tree_cache, *args, **kwargs):
        allocator = tree_cache.token_to_kv_pool_allocator
        honest, freed = allocator.free, []

        def free(slots: torch.Tensor) -> None:
            freed.append(slots.clone())
            honest(slots)

        with patch.object(allocator, "free", free):
            original(req, tree_cache, *args, **kwargs)
        slots = torch.cat(freed) if freed else torch.empty(0)
        if req.cached_tokens and len(slots):
            allocator.free(slots[-1:])

    return wrapped(schedule_batch, "release_kv_cache", release)


@fault("freed_too_early", stands_for="KV pages freed while the prefix tree still holds them", expected=("kv_pages",))
def freed_too_early():
    """A retraction begins to free one position too early, and so frees the last page of the request's prefix."""
    from sglang.srt.managers import schedule_batch

    def release(original, req, tree_cache, *args, **kwargs):
        kv = kv_state(req)
        slots = tree_cache.req_to_token_pool.req_to_token[kv.row, max(0, kv.protected - 1) : kv.protected].clone()
        original(req, tree_cache, *args, **kwargs)
        if req.output_ids:
            tree_cache.token_to_kv_pool_allocator.free(slots.to(torch.int64))

    return wrapped(schedule_batch, "release_kv_cache", release)


@fault("unfreed_row", stands_for="request rows leaked on an early end", expected=("request_rows",))
def unfreed_row():
    """A request that ends with its first token, in the prefill, keeps its row."""
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

    def free(original, pool, req):
        row = kv_state(req).row
        original(pool, req)
        if req.finished() and len(req.output_ids) == 1:
            pool.free_slots.remove(row)

    return wrapped(ReqToTokenPool, "free", free)


@fault("skipped_unlock", stands_for="tree locks that outlive their request", expected=("tree_locks",))
def skipped_unlock():
    """A running request that is aborted does not unlock its path in the prefix tree."""
    from sglang.srt.managers.scheduler_components import batch_result_processor

    def release(original, req, tree_cache, *args, **kwargs):
        if not was_aborted(req):
            return original(req, tree_cache, *args, **kwargs)
        with patch.object(tree_cache, "dec_lock_ref", lambda *args, **kwargs: None):
            return original(req, tree_cache, *args, **kwargs)

    return wrapped(batch_result_processor, "release_kv_cache", release)


@fault("unlocked_prefix", stands_for="a prefix extended in the tree without its lock", expected=("tree_locks",))
def unlocked_prefix():
    """When a retracted request has been prefilled again, the lock does not move to the node with its whole prompt."""
    from sglang.srt.managers.scheduler import Scheduler

    def process(original, scheduler, batch, *args, **kwargs):
        original(scheduler, batch, *args, **kwargs)
        if batch.forward_mode.is_extend() and not getattr(scheduler.tree_cache, "disable", False):
            for req in batch.reqs:
                if req.retraction_count and kv_state(req) is not None and req is not scheduler.chunked_req:
                    drop_lock(scheduler.tree_cache, req)

    return wrapped(Scheduler, "process_batch_result", process)


@fault("corrupted_page", stands_for="the KV of one request written over another's", expected=("kv_content",))
def corrupted_page():
    """A retracted request that decodes again beside others writes its token into its neighbour's page."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        resumed = [index for index, req in enumerate(batch.reqs) if req.retraction_count]
        if resumed and len(batch.reqs) > 1:
            slots = batch.out_cache_loc.clone()
            slots[resumed[0]] = slots[resumed[0] - 1]
            batch.out_cache_loc = slots

    return wrapped(ScheduleBatch, "prepare_for_decode", prepare)


@fault("wrong_page", stands_for="one request's KV served to another", expected=("kv_content", "oracle_output"))
def wrong_page():
    """Of two prompts in one prefill with prefixes of different lengths, the longer one's last entry is off by one."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        held = [kv for req in batch.reqs if (kv := kv_state(req)) is not None]
        lengths = {kv.protected for kv in held}
        longest = max(held, key=lambda kv: kv.protected)
        if len(lengths) > 1 and longest.protected > 1:
            row = batch.req_to_token_pool.req_to_token[longest.row]
            row[longest.protected - 1] = row[longest.protected - 2]

    return wrapped(ScheduleBatch, "prepare_for_extend", prepare)


# -- lifecycle -------------------------------------------------------------------------------------------------


@fault("advanced_while_paused", stands_for="results delivered while paused", expected=("paused_frozen",))
def advanced_while_paused():
    """The second turn of a pause in place delivers what was in flight under overlap."""
    from sglang.srt.managers.io_struct import PauseGenerationReqInput
    from sglang.srt.managers.scheduler import Scheduler

    def receive(original, scheduler, messages):
        original(scheduler, messages)
        in_flight = getattr(scheduler, "result_queue", ())
        just_paused = any(isinstance(message, PauseGenerationReqInput) for message in messages)
        if not scheduler._engine_paused or just_paused or not in_flight:
            return
        # A result that holds no token yet would change nothing now, and be missed by the loop after the pause.
        if any(req is not scheduler.chunked_req and not req.finished() for req in in_flight[0][0].reqs):
            scheduler.process_batch_result(*in_flight.popleft())

    return wrapped(Scheduler, "process_input_requests", receive)


@fault("ran_while_paused", stands_for="a pause that does not hold", expected=("paused_frozen",))
@contextmanager
def ran_while_paused():
    """From the second turn of a pause on, requests that wait are scheduled all the same."""
    from sglang.srt.managers.scheduler import Scheduler

    woken: list[bool] = []

    def receive(original, scheduler, messages):
        paused = scheduler._engine_paused
        original(scheduler, messages)
        if paused and scheduler._engine_paused and scheduler.waiting_queue:
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
    """An abort of a running request takes the pause back."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        original(scheduler, message)
        if any(req.to_finish is not None for req in scheduler.running_batch.reqs):
            scheduler._engine_paused = False

    return wrapped(Scheduler, "abort_request", abort)


@fault("lost_request", stands_for="requests lost across a pause", expected=("nobody_lost",))
def lost_request():
    """A pause that retracts forgets the request that was between two chunks."""
    from sglang.srt.managers.scheduler import Scheduler

    def pause(original, scheduler, message):
        chunked = scheduler.chunked_req
        original(scheduler, message)
        if message.mode == "retract" and chunked in scheduler.waiting_queue:
            scheduler.waiting_queue.remove(chunked)

    return wrapped(Scheduler, "pause_generation", pause)


@fault("starved_request", stands_for="starvation in admission", expected=("liveness",))
def starved_request():
    """A request that was retracted twice is never admitted again."""
    from sglang.srt.managers.scheduler import Scheduler

    def prefill(original, scheduler, *args, **kwargs):
        passed_over = [req for req in scheduler.waiting_queue if req.retraction_count > 1]
        scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req not in passed_over]
        try:
            return original(scheduler, *args, **kwargs)
        finally:
            scheduler.waiting_queue = passed_over + scheduler.waiting_queue

    return wrapped(Scheduler, "get_new_batch_prefill", prefill)


@fault("ignored_abort", stands_for="aborts lost between two queues", expected=("aborts",))
def ignored_abort():
    """An abort passes over requests that are only in the last batch: prefilled, not yet merged into the running one."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        last = scheduler.last_batch.reqs if scheduler.last_batch is not None else []
        missed = [req for req in last if req not in scheduler.running_batch.reqs and req.to_finish is None]
        original(scheduler, message)
        for req in missed:
            req.to_finish = None

    return wrapped(Scheduler, "abort_request", abort)


@fault("wrong_victim", stands_for="an abort that also hits another request", expected=("aborts",))
def wrong_victim():
    """An abort of a running request takes its batch mate with it."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        original(scheduler, message)
        reqs = scheduler.running_batch.reqs
        marks = [req.to_finish for req in reqs if req.to_finish is not None]
        spared = [req for req in reqs if req.to_finish is None]
        if marks and spared:
            spared[0].to_finish = marks[0]

    return wrapped(Scheduler, "abort_request", abort)


@fault("late_abort", stands_for="aborts reported late, with extra tokens", expected=("aborts",))
def late_abort():
    """A running request looks for its abort at every eighth output token only."""
    from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req

    def update(original, req, *args, **kwargs):
        mark = req.to_finish
        if not isinstance(mark, FINISH_ABORT) or len(req.output_ids) % 8 == 0:
            return original(req, *args, **kwargs)
        req.to_finish = None
        original(req, *args, **kwargs)
        if not req.finished():
            req.to_finish = mark

    return wrapped(Req, "update_finish_state", update)


# -- output ----------------------------------------------------------------------------------------------------


@fault("streamed_twice", stands_for="output repeated after a retraction", expected=("streams",))
def streamed_twice():
    """A retraction sets the offset into the stream back by one, so that one token is sent again."""
    from sglang.srt.managers.schedule_batch import Req

    def reset(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        req.send_token_offset = max(0, req.send_token_offset - 1)

    return wrapped(Req, "reset_for_retract", reset)


@fault("lost_logprob", stands_for="logprobs cut at a retraction", expected=("streams",))
def lost_logprob():
    """A retraction forgets the logprob of the last token."""
    from sglang.srt.managers.schedule_batch import Req

    def reset(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        holder = req.logprob if hasattr(req, "logprob") else req
        if req.return_logprob and holder.output_token_logprobs_val:
            holder.output_token_logprobs_val.pop()
            holder.output_token_logprobs_idx.pop()

    return wrapped(Req, "reset_for_retract", reset)


@fault("finish_sent_twice", stands_for="a request that ends twice under overlap", expected=("streams",))
def finish_sent_twice():
    """The end of an aborted request is not noted down, so the decode that was launched meanwhile reports it again."""
    from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

    def stream(original, streamer, reqs, *args, **kwargs):
        original(streamer, reqs, *args, **kwargs)
        for req in reqs:
            if was_aborted(req):
                req.finished_output = False

    return wrapped(SchedulerOutputStreamer, "stream_output", stream)


@fault("missed_stop", stands_for="outputs cut wrongly after a retraction", expected=("oracle_output",))
def missed_stop():
    """A request that was retracted does not stop at a stop token or EOS any more."""
    from sglang.srt.managers.schedule_batch import Req

    def check(original, req, *args, **kwargs):
        return False if req.retraction_count else original(req, *args, **kwargs)

    return wrapped(Req, "_check_token_based_finish", check)


# -- the scheduler itself --------------------------------------------------------------------------------------


@fault("missed_retraction", stands_for="a crash where it should have retracted", expected=("exception",))
def missed_retraction():
    """With three and more requests running, the check whether the next decode fits says yes: SGLang then raises."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def check(original, batch, *args, **kwargs):
        return len(batch.reqs) >= 3 or original(batch, *args, **kwargs)

    return wrapped(ScheduleBatch, "check_decode_mem", check)


@fault("endless_retraction", stands_for="a loop that waits for memory nobody frees", expected=("hang",))
def endless_retraction():
    """With three and more requests running, a retraction waits for memory instead of taking it from somebody."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def retract(original, batch, *args, **kwargs):
        while len(batch.reqs) >= 3 and not batch.check_decode_mem():
            pass
        return original(batch, *args, **kwargs)

    return wrapped(ScheduleBatch, "retract_decode", retract)


@fault("dead_on_abort", stands_for="the process dies, as after an illegal memory access", expected=("crash",))
def dead_on_abort():
    """An abort of everything that comes between two chunks kills the process."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, message):
        if message.abort_all and scheduler.chunked_req is not None:
            # A core file of some gigabytes would help nobody.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.abort()
        return original(scheduler, message)

    return wrapped(Scheduler, "abort_request", abort)


FAULTS: dict[str, Fault] = {value.name: value for value in list(globals().values()) if isinstance(value, Fault)}
"""All of them, by name, in the order of this file."""
