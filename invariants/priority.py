"""Admission follows the order of the queue, and preemption follows priority."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, disaggregated

from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.batches import Launched
from sr_fuzz.view.view import SchedulerView, name_of


class Priority(Invariant):
    """Requests are admitted in the order of their queue, and preempted only for a higher priority.

    Formula. *Order*: with priority scheduling no request is admitted while a request of strictly higher priority stays
    in the waiting queue; under plain ``fcfs`` no request is admitted while another that stood before it in the queue
    stays there. *Cause*: a request that is retracted in a step that launches a prefill was preempted; then priority
    scheduling with preemption is on, and a request that was admitted in this step, or still waits, has a priority
    higher than that of the preempted one by more than ``priority_scheduling_preemption_threshold``. Higher means
    larger, or smaller with ``schedule_low_priority_values_first``.

    Source: ``SchedulePolicy.calc_priority`` sorts the queue by priority before anything else, ``fcfs`` alone leaves it
    as it is; ``_get_new_batch_prefill_raw`` takes requests from the head of the queue and stops at the first that it
    cannot take; ``PrefillAdder.preempt_to_schedule``. ``retract_decode`` runs only in steps without a prefill
    (``get_next_batch_to_run``).
    Covers: policies ``fcfs`` and, with priorities, ``lof``; no LoRA and no storage behind the cache, which make
    admission pass over requests; one pipeline stage.

    Known false alarms: requests that are put (back) into the queue in the step itself come after the choice: preempted
    requests, and requests that a pause retracts; steps that take a pause are left out. The next chunk of a prompt is
    not an admission.
    """

    name = "priority"
    family = "lifecycle"

    def __init__(self) -> None:
        self._queue: list[Request] = []
        self._retractions: dict[Request, int] = {}
        self._admitted: dict[Request, int] = {}

    def not_covered(self, view: SchedulerView) -> str | None:
        facts = view.facts
        if facts.pp_size > 1:
            return "each pipeline stage has a batch of its own"
        if facts.lora or facts.storage_backend:
            return "admission may pass over requests whose adapter or cached prefix is not there yet"
        if facts.schedule_policy != "fcfs" and not facts.priority_scheduling:
            return f"schedule policy {facts.schedule_policy} orders by what it finds in the step itself"
        return disaggregated(view)

    def check(self, view: SchedulerView) -> Problem | None:
        queue, self._queue = self._queue, view.waiting
        retracted = [req for req in view.requests if req.retraction_count > self._retractions.get(req, 0)]
        self._retractions.update({req: req.retraction_count for req in retracted})
        admitted = self._admissions(view.launched)
        if any(message.call == "pause" for message in view.received):
            return None
        if not any(batch.mode in ("extend", "mixed") for batch in view.launched):
            return None
        waiting = [req for req in self._queue if req not in retracted]
        return self._cause(view, retracted, admitted + waiting) or self._order(view, queue, admitted, waiting)

    def _admissions(self, launched: list[Launched]) -> list[Request]:
        """Requests admitted in this step: their first prefill since they last waited was launched."""
        new = []
        for batch in launched:
            for row in batch.rows:
                if not row.decode and self._admitted.get(row.req) != row.residency:
                    self._admitted[row.req] = row.residency
                    if batch.mode in ("extend", "mixed"):
                        new.append(row.req)
        return new

    @staticmethod
    def _rank(view: SchedulerView, req: Request) -> int:
        """The rank of a request; the larger rank goes first."""
        return -req.priority if view.facts.low_priority_values_first else req.priority

    def _cause(self, view: SchedulerView, retracted: list[Request], others: list[Request]) -> Problem | None:
        if not retracted:
            return None
        victim = retracted[0]
        if not view.facts.priority_preemption:
            return Problem(
                "preempted_without_leave", f"{name_of(victim.rid)} was retracted for a prefill, preemption is off"
            )
        threshold = view.facts.preemption_threshold
        best = max(others, key=lambda req: self._rank(view, req), default=None)
        for victim in retracted:
            if best is None or self._rank(view, best) - self._rank(view, victim) <= threshold:
                who = f"{name_of(best.rid)} with {best.priority}" if best is not None else "none"
                return Problem(
                    "preempted_without_cause",
                    f"{name_of(victim.rid)} (priority {victim.priority}) was preempted; the highest priority that was "
                    f"admitted or waits is {who}, the threshold is {threshold}",
                )
        return None

    def _order(
        self, view: SchedulerView, queue: list[Request], admitted: list[Request], waiting: list[Request]
    ) -> Problem | None:
        if view.facts.priority_scheduling:
            for req in waiting:
                passed = [other for other in admitted if self._rank(view, other) < self._rank(view, req)]
                if passed:
                    return Problem(
                        "lower_priority_first",
                        f"{name_of(passed[0].rid)} (priority {passed[0].priority}) was admitted, "
                        f"{name_of(req.rid)} ({req.priority}) waits",
                    )
            return None
        arrivals = [message.rid for message in view.received if message.is_request]
        place = {rid: at for at, rid in enumerate([*(req.rid for req in queue), *arrivals])}
        known = [req for req in admitted if req.rid in place]
        for req in waiting:
            for other in known:
                if place.get(req.rid, len(place)) < place[other.rid]:
                    return Problem(
                        "overtaken", f"{name_of(other.rid)} was admitted, {name_of(req.rid)} was before it in the queue"
                    )
        return None
