"""No request is lost."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, names

from sr_fuzz.view.view import SchedulerView, name_of


class NobodyLost(Invariant):
    """Every unanswered request is in a place from which it can go on.

    Formula: each request that reached the scheduler, and got neither a finish nor an abort, is in the waiting queue,
    the running batch, the last batch, the chunked slot, the result queue or the grammar queue; and an unfinished
    request in the running batch holds KV.

    Source: the queues that ``Scheduler.is_fully_idle`` counts.
    Covers: the unified mode; disaggregation has queues of its own.
    """

    name = "nobody_lost"
    family = "lifecycle"

    def check(self, view: SchedulerView) -> Problem | None:
        placed = view.now.placed
        lost = [rid for rid in view.unanswered() if rid not in placed]
        if lost:
            return Problem(
                "lost",
                f"{names([name_of(rid) for rid in lost])} arrived and got no answer, and is in no queue or batch",
            )
        return None
