"""No request row is leaked, freed twice, or shared."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, names, numbers

from sr_fuzz.view.view import SchedulerView


class RequestRows(Invariant):
    """Rows of the request-to-token table are partitioned exactly.

    Formula: ``free_slots`` has no duplicates; the free rows and the rows of KV-holding requests and sessions are
    disjoint and together all rows of ``req_to_token`` but row 0, which is padding.

    Source: ``ReqToTokenPool.alloc`` and ``free`` in ``mem_cache/memory_pool.py``.
    Covers: every cache kind without beam search, which owns rows of its own.
    """

    name = "request_rows"
    family = "memory"

    def check(self, view: SchedulerView) -> Problem | None:
        free = view.now.free_rows
        used: dict[int, list[str]] = {}
        for holder in view.now.holders:
            used.setdefault(holder.kv.row, []).append(holder.name)
        rows = view.rows
        foreign = (set(free) | set(used)) - rows
        if foreign:
            who = names(sorted({owner for row in foreign for owner in used.get(row, ["the free list"])}))
            return Problem("foreign_row", f"rows {numbers(list(foreign))} outside 1..{max(rows)} are used by {who}")
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
        lost = rows - set(free) - set(used)
        if lost:
            return Problem("leaked", f"rows {numbers(list(lost))} are neither free nor held by a request")
        return None
