"""No request row is leaked, freed twice, or shared."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, numbers

from sr_fuzz.view.view import SchedulerView


class RequestRows(Invariant):
    """Rows of the request-to-token table are partitioned exactly.

    Formula: ``free_slots`` has no duplicates; the free rows and the rows of KV-holding requests and sessions are
    disjoint and together ``{1 … size}`` (row 0 is padding; releases up to 0.5.18 may count from 0, so the range is
    taken from the pool).

    Source: ``ReqToTokenPool.alloc`` and ``free`` in ``mem_cache/memory_pool.py``.
    Covers: every cache kind without beam search, which owns rows of its own.
    """

    name = "request_rows"
    family = "memory"

    def __init__(self) -> None:
        self._all: set[int] | None = None

    def check(self, view: SchedulerView) -> Problem | None:
        free = view.now.free_rows
        used: dict[int, list[str]] = {}
        for holder in view.now.holders:
            used.setdefault(holder.kv.row, []).append(holder.name)
        if self._all is None:
            # The first step is healthy by construction: nothing has run yet.
            self._all = set(free) | set(used)
        if len(free) != len(set(free)):
            twice = [row for row in set(free) if free.count(row) > 1]
            return Problem("double_free", f"rows {numbers(twice)} are in the free list more than once")
        shared = {row: who for row, who in used.items() if len(who) > 1}
        if shared:
            return Problem("owned_twice", "; ".join(f"row {r}: {', '.join(w)}" for r, w in sorted(shared.items())))
        both = set(free) & set(used)
        if both:
            who = "; ".join(f"row {row}: {used[row][0]}" for row in sorted(both))
            return Problem("use_after_free", f"rows in use are in the free list: {who}")
        lost = self._all - set(free) - set(used)
        if lost:
            return Problem("leaked", f"rows {numbers(list(lost))} are neither free nor held by a request")
        return None
