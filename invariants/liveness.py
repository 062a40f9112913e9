"""The engine makes progress while it can, and every request ends."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, names

from sr_fuzz.view.view import SchedulerView, name_of

# Bound on the steps without a forward while there is work. A healthy engine idles one or two steps between batches (a
# result in flight, a skipped decode); 60 is far from both that and the shortest epilogue.
STUCK_STEPS = 60


class Liveness(Invariant):
    """While the engine has work it runs forwards, and after the epilogue no request waits.

    Formula: while a request is unanswered, the engine is not paused and nothing is held, at most 60 steps in a row pass
    without a forward; after the drain all requests are answered, and the idle engine then flushes its cache when asked
    to.

    Source: ``get_next_batch_to_run``: each step tries a prefill, else a decode. The drain's bound is derived from the
    work left, see `sr_fuzz.play.epilogue`.
    Covers: everything without a time-out of its own.

    Known false alarms: an exhauster may hold exactly what is needed, a paused engine may do nothing, and a streaming
    session keeps its KV, which nothing can evict, until it is closed: each resets the count.
    """

    name = "liveness"
    family = "lifecycle"

    def __init__(self) -> None:
        self._idle_steps = 0
        self._forwards = 0

    def check(self, view: SchedulerView) -> Problem | None:
        moved = view.forward_steps != self._forwards
        self._forwards = view.forward_steps
        waiting = view.unanswered()
        if moved or view.paused or view.holding or view.sessions_hold_memory or not waiting:
            self._idle_steps = 0
            return None
        self._idle_steps += 1
        if self._idle_steps < STUCK_STEPS:
            return None
        # The places where requests wait tell starvation in admission from a batch that is never run: different bugs.
        placed = view.now.placed
        kinds = sorted({place for rid in waiting for place in placed.get(rid, ["nowhere"])})
        return Problem(
            f"stuck_{'_'.join(kinds)}",
            f"no forward in {self._idle_steps} steps although {self._where(view, waiting)}; "
            f"{len(view.now.free_pages)} of {view.num_pages} pages and {len(view.now.free_rows)} rows are free",
        )

    def check_end(self, view: SchedulerView) -> Problem | None:
        waiting = view.unanswered()
        if waiting:
            return Problem("unfinished", f"the drain's bound is reached, but {self._where(view, waiting)}")
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        if view.last_flush_ok is None:
            return Problem("flush_unanswered", "the flush was never answered")
        if not view.last_flush_ok:
            return Problem("flush_refused", "every request is answered, but the engine refused to flush its cache")
        return None

    @staticmethod
    def _where(view: SchedulerView, rids: list[str]) -> str:
        placed = view.now.placed
        shown = [f"{name_of(rid)} ({'+'.join(placed.get(rid, ['nowhere']))})" for rid in rids]
        return f"{names(shown)} wait{'s' if len(rids) == 1 else ''} for an answer"
