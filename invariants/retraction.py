"""A retracted request is queued again in the same step, holds no memory, and keeps its output."""

from __future__ import annotations

from dataclasses import dataclass

from sr_fuzz.invariants.base import Invariant, Problem, disaggregated

from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


@dataclass(slots=True)
class _Seen:
    retractions: int
    output: list[int]


class Retraction(Invariant):
    """Retraction takes nothing but the memory of a request, which is queued again in the same step.

    Formula: ``output_ids`` of a request only ever grows at its end. In the step in which ``retraction_count`` rises,
    the request enters the waiting queue, is admitted again, or is answered. A request in the waiting queue is in it
    once, is not finished, and holds no KV.

    Source: ``Req.reset_for_retract``; its callers ``ScheduleBatch.retract_decode``, ``retract_all`` (pause) and
    ``PrefillAdder.preempt_to_schedule``, after which ``Scheduler._add_request_to_queue`` follows.
    Covers: the unified mode. That sent tokens are neither repeated nor left out is checked by `Streams`.

    Known false alarms: a full queue aborts a retracted request (``_abort_on_queued_limit``), which answers it. A
    request with input embeddings starts over (``reset_for_retract`` empties its output). A session's request may keep
    memory while it waits.
    """

    name = "retraction"
    family = "lifecycle"

    def __init__(self) -> None:
        self._seen: dict[Request, _Seen] = {}

    def not_covered(self, view: SchedulerView) -> str | None:
        return disaggregated(view)

    def check(self, view: SchedulerView) -> Problem | None:
        problem = self._waiting(view)
        if problem is not None:
            return problem
        for req in view.requests:
            before = self._seen.get(req)
            if before is None:
                self._seen[req] = _Seen(req.retraction_count, list(req.output_ids))
                continue
            if req.retraction_count > before.retractions:
                before.retractions = req.retraction_count
                problem = self._placed(view, req)
            problem = problem or self._output_kept(req, before)
            if problem is not None:
                return problem
        return None

    @staticmethod
    def _waiting(view: SchedulerView) -> Problem | None:
        seen: set[Request] = set()
        for req in view.waiting:
            who = name_of(req.rid)
            if req in seen:
                return Problem("queued_twice", f"{who} is in the waiting queue twice")
            seen.add(req)
            if req.is_finished:
                return Problem("waits_though_finished", f"{who} waits, although it has finished: {req.finish}")
            kv = req.kv
            if kv is not None and req.session_id is None:
                return Problem("waits_with_memory", f"{who} waits, and holds row {kv.row} with {kv.allocated} tokens")
        return None

    @staticmethod
    def _placed(view: SchedulerView, req: Request) -> Problem | None:
        if any(waiting is req for waiting in view.waiting) or view.answered(req.rid):
            return None
        if any(row.req is req and not row.decode for batch in view.launched for row in batch.rows):
            return None
        places = "+".join(view.now.placed.get(req.rid, ["nowhere"]))
        return Problem(
            "not_queued", f"{name_of(req.rid)} was retracted, but is neither waiting nor admitted again ({places})"
        )

    @staticmethod
    def _output_kept(req: Request, before: _Seen) -> Problem | None:
        known, output = before.output, req.output_ids
        if len(output) == len(known):
            return None
        now = list(output)
        if len(now) < len(known) and not req.has_input_embeds:
            return Problem(
                "output_lost",
                f"{name_of(req.rid)} had {len(known)} output tokens, has {len(now)} now "
                f"(retracted {req.retraction_count} times)",
            )
        if now[: len(known)] != known and not req.has_input_embeds:
            at = next(i for i, (old, new) in enumerate(zip(known, now)) if old != new)
            return Problem("output_changed", f"{name_of(req.rid)}: output token {at} was {known[at]}, is {now[at]} now")
        before.output = now
        return None
