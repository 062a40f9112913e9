"""Breakages of queues, batches, chunks and ends."""

from __future__ import annotations

from typing import Any

from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.faults import triggered
from sr_fuzz.script import Abort, Action, Continue, EngineConfig, Pause, Prompt, StartReq, Step, StepUntil
from tests.breakages import sessions
from tests.breakages.breaking import CONFIG, ONE, TWO, call, running, state

PAGED = CONFIG_SETS["paged"]["paged4-chunk16"]
NO_TREE = CONFIG_SETS["default"]["noradix-lof-chunk16"]
NO_PREEMPTION = EngineConfig(
    max_total_tokens=96, max_running_requests=2, enable_priority_scheduling=True, disable_priority_preemption=True,
    priority_scheduling_preemption_threshold=5,
)  # fmt: skip

RETRACTED: tuple[Action, ...] = (
    StartReq("r0", ignore_eos=True), StepUntil("r0", "mid_decode"), Pause("retract"), Step(2), Continue(), Step(12),
)  # fmt: skip

CHUNKS: tuple[Action, ...] = (StartReq("r0", Prompt(length=40), 4, ignore_eos=True), Step(10))

# There are two rows; the third request is the most urgent one.
URGENT: tuple[Action, ...] = (
    StartReq("r0", max_new_tokens=20, priority=1, ignore_eos=True),
    StartReq("r1", Prompt(family=1), max_new_tokens=20, priority=1, ignore_eos=True),
    StepUntil("r1", "first_decode"),
    StartReq("r2", Prompt(family=2), max_new_tokens=4, priority=20),
    Step(30),
)

_SCHEDULER, _REQ = "managers.scheduler:Scheduler", "managers.schedule_batch:Req"

# -- who waits, who runs ---------------------------------------------------------------------------------------


@state("nobody_lost:runs_without_memory")
def stripped(scheduler: Any) -> bool:
    """A running request gives back its memory, and goes on to run."""
    from sglang.srt.mem_cache.common import release_kv_cache

    for req in running(scheduler)[:1]:
        release_kv_cache(req, scheduler.tree_cache, checkpoint=False)
        return True
    return False


@state("retraction:queued_twice", RETRACTED)
def queued_twice(scheduler: Any) -> bool:
    """A waiting request is queued again."""
    queue = scheduler.waiting_queue
    queue += queue[:1]
    return bool(queue)


@call("retraction:waits_though_finished", _SCHEDULER, "process_batch_result")
def queued_when_finished(original, scheduler, batch, *args, **kwargs):
    """A request that has finished is queued."""
    original(scheduler, batch, *args, **kwargs)
    finished = [req for req in batch.reqs if req.finished()]
    if finished:
        triggered()
    scheduler.waiting_queue += finished


@state("retraction:waits_with_memory")
def queued_with_memory(scheduler: Any) -> bool:
    """A running request is queued as well."""
    scheduler.waiting_queue += running(scheduler)[:1]
    return bool(scheduler.waiting_queue)


@state("retraction:not_queued")
def only_counted(scheduler: Any) -> bool:
    """A running request counts as retracted, and goes on to run."""
    for req in running(scheduler)[:1]:
        req.retraction_count += 1
        return True
    return False


@call("retraction:output_changed", _REQ, "reset_for_retract", RETRACTED)
def other_output(original, req):
    """A retraction changes the first output token, in the step in which the newest one comes."""
    original(req)
    triggered()
    req.output_ids[0] ^= 1


@state("priority:preempted_without_leave", URGENT, NO_PREEMPTION)
def unasked_preemption(scheduler: Any) -> bool:
    """Running requests are preempted although that is switched off."""
    scheduler.enable_priority_preemption = True
    return True


# -- chunks ----------------------------------------------------------------------------------------------------


@call("chunks:two_chunked", _SCHEDULER, "run_batch", TWO)
def longer_prompts(original, scheduler, batch, *args, **kwargs):
    """Two requests that are prefilled as a whole get one token more when their batch is launched."""
    if batch.forward_mode.is_extend() and len(batch.reqs) > 1:
        triggered()
        for req in batch.reqs:
            req.origin_input_ids.append(1)
    return original(scheduler, batch, *args, **kwargs)


@call("chunks:wrong_range", _SCHEDULER, "run_batch")
def shorter_prompt(original, scheduler, batch, *args, **kwargs):
    """A prompt loses its last token when its prefill is launched, so that the prefill goes beyond it."""
    if batch.forward_mode.is_extend():
        triggered()
        batch.reqs[0].origin_input_ids.pop()
    return original(scheduler, batch, *args, **kwargs)


def _shifted(
    rule: str, by: int, actions: tuple[Action, ...], config: EngineConfig, first: bool, alone: str = ""
) -> None:
    @call(rule, _SCHEDULER, "run_batch", actions, config, alone)
    def shifted(original, scheduler, batch, *args, **kwargs):
        """A chunk is launched at another position than the one it is for."""
        chunked = scheduler.chunked_req
        if batch.forward_mode.is_extend() and chunked is not None and (batch.prefix_lens[0] == 0) is first:
            triggered()
            batch.prefix_lens = [batch.prefix_lens[0] + by, *batch.prefix_lens[1:]]
        return original(scheduler, batch, *args, **kwargs)


_CONTENT = "kv_content: the forward writes the positions of the launch"
_shifted("chunks:chunk_skipped", 1, CHUNKS, CONFIG, first=False, alone=_CONTENT)
_shifted("chunks:chunk_repeated", -1, CHUNKS, CONFIG, first=False, alone=_CONTENT)
_shifted("chunks:prefix_from_nowhere", 1, CHUNKS, NO_TREE, first=True, alone=_CONTENT)
_shifted("chunks:prefix_not_aligned", 1, CHUNKS, PAGED, first=True, alone=_CONTENT)


@call("chunks:chunk_not_aligned", "managers.schedule_batch:ScheduleBatch", "prepare_for_extend", CHUNKS, PAGED)
def cut_chunk(original, batch, *args, **kwargs):
    """A first chunk is one token shorter."""
    for req in batch.reqs:
        if not req.prefix_len and req.extend_end == 16:
            triggered()
            req.extend_end -= 1
    return original(batch, *args, **kwargs)


@call("chunks:prefilled_again", _REQ, "reset_for_retract", RETRACTED)
def uncounted(original, req):
    """A retraction is not counted, so that the same residency begins anew."""
    original(req)
    triggered()
    req.retraction_count -= 1


@state("chunks:decoded_too_early", RETRACTED)
def other_residency(scheduler: Any) -> bool:
    """A request that runs again after a retraction counts as one that was not retracted, and was not prefilled."""
    for req in running(scheduler)[:1]:
        if req.retraction_count:
            req.retraction_count -= 1
            return True
    return False


# -- ends ------------------------------------------------------------------------------------------------------


@state("liveness:unfinished", (StartReq("r0", Prompt(length=1), 2, ignore_eos=True),), sessions.CONFIG)
def endless(scheduler: Any) -> bool:
    """The limit of a running request moves on with its output."""
    for req in running(scheduler):
        triggered()
        req.sampling_params.max_new_tokens = len(req.output_ids) + 4
    return False


@state("exception:loop_left", ONE)
def left(scheduler: Any) -> bool:
    """The scheduler leaves its event loop."""
    scheduler.gracefully_exit = True
    return True


_ABORTED: tuple[Action, ...] = (
    StartReq("r0", max_new_tokens=5, ignore_eos=True), StepUntil("r0", "first_decode"), Abort("r0"), Step(8),
)  # fmt: skip


@call("aborts:ended_otherwise", _REQ, "update_finish_state", _ABORTED)
def unmarked(original, req, *args, **kwargs):
    """The mark of an abort is taken off a running request, which then ends by length."""
    if req.to_finish is not None:
        triggered()
        req.to_finish = None
    return original(req, *args, **kwargs)
