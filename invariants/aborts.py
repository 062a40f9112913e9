"""An aborted request ends soon with an abort, and no other request ends as aborted."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, sessions_open

from sr_fuzz.sglang_api.incoming import Received
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of

# The tokens come from the forward in flight, the forward that carries the abort mark, and under overlap one more
# forward that was launched meanwhile.
STEPS_AFTER_ABORT = 3

# HTTP status with which SGLang ends a request that it cannot give memory to.
NO_MEMORY = 500

_HELD = "held_rebootstrap_reqs"


class HeldBack:
    """Tracks which requests a decode server holds for re-bootstrap, message by message.

    A pause, an abort and a continue can all arrive in one step, so the state at the end of the step is not enough. The
    first continue releases the requests that were held when the step began. The requests that the first
    ``pause(retract)`` of the step takes back have been retracted once more than at the end of the step before; a second
    such pause in the same step finds no batch.
    """

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._retractions: dict[str, int] = {}

    def at(self, view: SchedulerView, abort: Received, rid: str) -> bool:
        """Whether ``rid`` was held when ``abort``, a message of this step, was taken."""
        held, taken = rid in self._held, self._retracted(view)
        for message in view.received:
            if message is abort:
                break
            if message.call == "continue":
                held = False
            elif message.retracts:
                held, taken = held or rid in taken, set()
        return held

    def end_step(self, view: SchedulerView) -> None:
        """Record the state with which the next step begins."""
        self._held = {rid for rid, places in view.now.placed.items() if _HELD in places}
        self._retractions = {req.rid: req.retraction_count for req in view.requests}

    def _retracted(self, view: SchedulerView) -> set[str]:
        return {req.rid for req in view.requests if req.retraction_count > self._retractions.get(req.rid, 0)}


class Aborts(Invariant):
    """Aborts are honoured, and no request ends as aborted without cause.

    Formula: a request that was unanswered when an abort for it was taken gets at most the tokens of three more steps
    (without speculation: three tokens), and if it ends in a later step than the next, its finish reason is an abort.
    (That it ends at all is checked by `Liveness`.) A request that ends as aborted without an error status has been
    covered by an abort that was taken. A request is not aborted for lack of memory while it is alone with a pool that
    holds its prompt and output.

    Source: ``Scheduler.abort_request``: a waiting request is dropped at once, a chunked request at the next scheduling
    step, and a running request is marked (``to_finish``) and finishes with its next decode. Matching is by rid
    *prefix*. For lack of memory ``ScheduleBatch.retract_decode`` aborts the last running request if it does not fit
    alone.
    Covers: the unified mode.

    Known false alarms: by design a running request must decode once more, so it waits while prefills go first, and an
    abort under ``pause(in_place)`` is answered only after continue; hence tokens are counted, not steps. A result in
    flight may finish the request naturally in the step of the abort or the next. The engine itself aborts a request
    that does not fit or waits too long; it then gives a status. A request that replaces others of its session aborts
    them. An abort does not reach the requests that a decode server holds during a pause (``held_rebootstrap_reqs``), as
    a comment there says: see `HeldBack`. Another holder of memory at the start of the step (an exhauster, a session or
    a second pool) may be the cause of an abort for lack of memory: such steps are left out.
    """

    name = "aborts"
    family = "lifecycle"

    def __init__(self) -> None:
        self._aborted: dict[str, tuple[int, int, int]] = {}
        """For each aborted request: the step of its abort, its output length then, and how many steps had run."""
        self._ran = 0
        self._covered: set[str] = set()
        """Requests that had arrived when an abort was taken that names them."""
        self._held_back = HeldBack()
        self._held: set[str] = set()
        """Names of the KV-holding requests and sessions at the end of the step before."""

    def check(self, view: SchedulerView) -> Problem | None:
        reqs = {req.rid: req for req in view.requests}
        self._ran += not view.paused
        for rid, (step, length, ran) in list(self._aborted.items()):
            req = reqs.get(rid)
            extra = len(req.output_ids_through_stop) - length if req is not None else 0
            if extra > STEPS_AFTER_ABORT * view.facts.tokens_per_step:
                return Problem(
                    "too_many_tokens", f"{name_of(rid)} was aborted at step {step} and got {extra} tokens since"
                )
            if view.answered(rid):
                del self._aborted[rid]
                problem = self._ending(view, rid, step, self._ran - ran)
                if problem is not None:
                    return problem
        self._note_aborts(view, reqs)
        if view.half == "decode":
            self._held_back.end_step(view)
        problem = self._uncalled_for(view) or self._fitted(view, reqs)
        self._held = {holder.name for holder in view.now.holders}
        return problem

    def _note_aborts(self, view: SchedulerView, reqs: dict[str, Request]) -> None:
        for message in view.received:
            if message.call != "abort":
                continue
            # The request must have arrived before the abort was taken: the order within the step decides.
            named = [rid for rid in view.arrived if message.abort_all or rid.startswith(message.rid)]
            covered = {rid for rid in named if self._came_before(view, rid, message)}
            self._covered |= covered
            for rid in view.unanswered():
                if rid not in covered:
                    continue
                if view.half == "decode" and self._held_back.at(view, message, rid):
                    continue
                req = reqs.get(rid)
                length = len(req.output_ids) if req is not None else 0
                self._aborted.setdefault(rid, (view.now.step, length, self._ran))

    def _uncalled_for(self, view: SchedulerView) -> Problem | None:
        for rid, delta in view.recorder.sent_in_step:
            finish = delta.finish or {}
            if finish.get("type") != "abort" or finish.get("status_code") is not None:
                continue
            if rid in view.sessions.replaced:
                continue
            if rid not in self._covered:
                return Problem("uncalled_for", f"{name_of(rid)} ended as aborted, no abort was requested: {finish}")
        return None

    def _fitted(self, view: SchedulerView, reqs: dict[str, Request]) -> Problem | None:
        for rid, delta in view.recorder.sent_in_step:
            finish, req = delta.finish or {}, reqs.get(rid)
            if finish.get("type") != "abort" or finish.get("status_code") != NO_MEMORY or req is None:
                continue
            holders = self._held | {holder.name for holder in view.now.holders}
            if holders - {name_of(rid)} or not req.output_ids or _memory_elsewhere(view):
                continue
            longest = len(req.origin_input_ids) + req.max_new_tokens
            pages = -(-longest // view.page_size)
            if pages <= view.num_pages:
                return Problem(
                    "aborted_though_room",
                    f"{name_of(rid)} was aborted for lack of memory after {len(req.output_ids)} tokens; no other "
                    f"request held any, and with all its output it takes {pages} of {view.num_pages} pages",
                )
        return None

    @staticmethod
    def _came_before(view: SchedulerView, rid: str, abort: Received) -> bool:
        if view.arrived[rid] < view.now.step:
            return True
        order = [m for m in view.received if m is abort or (m.is_request and m.rid == rid)]
        return order[0] is not abort

    @staticmethod
    def _ending(view: SchedulerView, rid: str, step: int, steps: int) -> Problem | None:
        """Check how an aborted request ended; ``steps`` is how many steps ran since the abort.

        During an in-place pause, results in flight wait for the end of the pause.
        """
        end = view.recorder.streams[rid].finishes[0]
        kind = (end.finish or {}).get("type")
        if end.aborted or kind == "abort" or steps <= 1:
            return None
        return Problem(
            "ended_otherwise",
            f"{name_of(rid)} was aborted at step {step}, but ended at step {end.step} with reason {kind!r}",
        )


def _memory_elsewhere(view: SchedulerView) -> bool:
    """Whether anything but requests can hold memory, or anything but pages can run out."""
    several = view.has_window_pool or view.state_allocator is not None or view.facts.pp_size > 1
    on_host = view.facts.hierarchical_cache
    return bool(view.holding or view.half or several or on_host or sessions_open(view))
