"""No request is lost."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, names

from sr_fuzz.view.view import SchedulerView, name_of

# What the second part of the formula reads; the first, which matters most, does without.
_WHO_HOLDS_KV = (
    "Req.kv", "Req.finished", "Req.req_pool_idx", "Req.cache_protected_len", "Req.kv_committed_len",
    "ReqKvInfo.kv_allocated_len",
)  # fmt: skip


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

    def coarse(self, view: SchedulerView) -> str | None:
        reason = view.missing.lacks(*_WHO_HOLDS_KV)
        return None if reason is None else f"not whether running requests hold KV: {reason}"

    def check(self, view: SchedulerView) -> Problem | None:
        placed = view.now.placed
        lost = [rid for rid in view.unanswered() if rid not in placed]
        if lost:
            return Problem(
                "lost",
                f"{names([name_of(rid) for rid in lost])} arrived and got no answer, and is in no queue or batch",
            )
        if view.missing.lacks(*_WHO_HOLDS_KV) is not None:
            return None
        empty = [req for req in view.running if not req.is_finished and req.kv is None]
        if empty:
            return Problem(
                "runs_without_memory",
                f"{names([name_of(req.rid) for req in empty])} is in the running batch unfinished, and holds no KV",
            )
        return None
