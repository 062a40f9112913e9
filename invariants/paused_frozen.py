"""A paused engine does nothing."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


class PausedFrozen(Invariant):
    """While the engine is paused no forward runs and no request's output grows.

    Formula: the engine is paused at the end of a step if and only if the last pause or continue message that it took
    was a pause. In a step that begins and ends paused and takes no pause message, no batch runs and ``len(output_ids)``
    of every request stays the same.

    Source: the event loops skip scheduling while ``_engine_paused`` (``event_loop_normal``, ``event_loop_overlap``);
    ``pause_generation``.
    Covers: everything.

    Known false alarms: the step that handles a pause message may deliver one result that was in flight (a ``retract``
    under overlap, also when it follows an ``in_place`` pause), so steps that take a pause are left out. An abort of a
    request that was only waiting is answered while paused; it adds no token.
    """

    name = "paused_frozen"
    family = "lifecycle"

    def __init__(self) -> None:
        self._asked = False
        self._lengths: dict[Request, int] = {}

    def check(self, view: SchedulerView) -> Problem | None:
        was_asked = self._asked
        calls = [message.call for message in view.received]
        for call in calls:
            if call in ("pause", "continue"):
                self._asked = call == "pause"
        if view.paused != self._asked:
            seen, wanted = ("paused", "to continue") if view.paused else ("not paused", "to pause")
            return Problem("not_as_asked", f"the engine is {seen}, the last it was told is {wanted}")
        problem = None
        if was_asked and view.paused and "pause" not in calls:
            problem = self._moved(view)
        if view.paused:
            self._lengths = {req: len(req.output_ids) for req in view.requests}
        return problem

    def _moved(self, view: SchedulerView) -> Problem | None:
        if view.batches:
            mode, rids = view.batches[0]
            return Problem("forward_while_paused", f"a {mode} batch of {len(rids)} requests ran while paused")
        for req in view.requests:
            before = self._lengths.get(req, len(req.output_ids))
            if len(req.output_ids) != before:
                return Problem(
                    "output_moved",
                    f"{name_of(req.rid)} had {before} output tokens, has {len(req.output_ids)} now; the engine has "
                    "been paused all the time",
                )
        return None
