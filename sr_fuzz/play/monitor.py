"""The observer of a run: after each step it refreshes the view, counts, writes the trace and checks the invariants.

The first violation ends the run, because what comes after a broken invariant says nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sr_fuzz.invariants import Invariant, Problem
from sr_fuzz.invariants.streams import Streams
from sr_fuzz.outcome import StepRecord, Violation
from sr_fuzz.outcome.trace import NOT_TOLD
from sr_fuzz.play.reach import Reach
from sr_fuzz.sglang_api.missing import ReadErrors
from sr_fuzz.view.view import SchedulerView, name_of

# A trace longer than this is cut at its head: a report shows the end, and an Outcome should stay small.
MAX_TRACE = 400


class ViolationFound(BaseException):
    """Raised at a violation to leave SGLang's event loop; no ``Exception``, so that nothing in between catches it."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation


class Monitor:
    """Implements the hook's ``Observer``."""

    def __init__(self, view: SchedulerView, invariants: Sequence[Invariant]) -> None:
        self.view = view
        self.reach = Reach(view)
        self.trace: deque[StepRecord] = deque(maxlen=MAX_TRACE)
        self.checks: dict[str, int] = {}
        self.no_subject: dict[str, str] = {}
        self.not_checked: dict[str, str] = {}
        self.coarse: dict[str, str] = {}
        self.not_played: dict[str, str] = {}
        """Kinds of action for which this SGLang lacks something, with what it lacks."""
        self.steps = 0
        self._actions: list[str] = []
        self._invariants: list[Invariant] = []
        for invariant in invariants:
            self._take(invariant)

    def _take(self, invariant: Invariant) -> None:
        if (reason := self.view.missing.unchecked(invariant.name)) is not None:
            self.not_checked[invariant.name] = reason
            return
        try:
            no_subject, not_covered = invariant.no_subject(self.view), invariant.not_covered(self.view)
            instead = invariant.coarse(self.view)
        except ReadErrors as error:
            self._leave_out(invariant, error)
            return
        if no_subject is not None:
            self.no_subject[invariant.name] = no_subject
        elif not_covered is not None:
            self.not_checked[invariant.name] = not_covered
        else:
            self._invariants.append(invariant)
            self.checks[invariant.name] = 0
            if instead is not None:
                self.coarse[invariant.name] = instead

    def _leave_out(self, invariant: Invariant, error: BaseException) -> None:
        """Drop an invariant, with its counts, because it reads a name that this SGLang lacks.

        Raises ``error`` if that is not its cause.
        """
        reason = self.view.missing.excuse(error)
        if reason is None:
            raise error
        self.not_checked[invariant.name] = reason
        self._invariants = [other for other in self._invariants if other is not invariant]
        self.checks.pop(invariant.name, None)
        self.coarse.pop(invariant.name, None)

    def attempt(self, action: str, send: Callable[[], None]) -> bool:
        """Send an action of that kind; where this SGLang lacks something for it, note that and return False."""
        try:
            send()
        except ReadErrors as error:
            reason = self.view.missing.excuse(error)
            if reason is None:
                raise
            self.not_played[action] = reason
            return False
        return True

    def note_action(self, text: str) -> None:
        """Called by the interpreter for each action it sends; it goes into the record of the coming step."""
        self._actions.append(text)

    # -- the hook's side ---------------------------------------------------------------------------------------

    def begin_step(self, step: int) -> None:
        self.view.begin_step(step)

    def on_run_batch(self, batch: Any) -> None:
        self.view.on_run_batch(batch)
        self.reach.on_run_batch(self.view.launched[-1])

    def end_step(self, step: int) -> None:
        self.steps = step
        self.view.refresh(step)
        self.reach.end_step()
        self.trace.append(self._record(step))
        self._actions.clear()
        self._check("step", lambda invariant: invariant.check(self.view))

    def _look_at_messages(self) -> None:
        """A message that contradicts itself comes first: what it should have said is missing from all other records."""
        if self.view.recorder.malformed and Streams.name in self.checks:
            told = self.view.recorder.malformed[0]
            message = f"a message of the engine contradicts itself: {told}"
            raise ViolationFound(Violation(Streams.name, "malformed_message", message, self.steps, "step"))

    def check_end(self) -> None:
        """Check the invariants after the epilogue has drained the engine."""
        self._check("end", lambda invariant: invariant.check_end(self.view))

    def check_flushed(self) -> None:
        """Check the invariants after the flush that ends the epilogue."""
        self._check("end", lambda invariant: invariant.check_flushed(self.view))

    def _check(self, when: str, check: Callable[[Invariant], Problem | None]) -> None:
        self._look_at_messages()
        for invariant in self._invariants:
            if when == "step":
                self.checks[invariant.name] += 1
            try:
                problem = check(invariant)
            except ReadErrors as error:
                self._leave_out(invariant, error)
                continue
            if problem is not None:
                raise ViolationFound(Violation(invariant.name, problem.rule, problem.message, self.steps, when))

    # -- the trace ---------------------------------------------------------------------------------------------

    def record_unfinished_step(self) -> None:
        """Add a record for the step in which the scheduler raised."""
        self.trace.append(
            StepRecord(step=self.steps + 1, actions=tuple(self._actions), **_last_batch(self.view.batches))
        )

    def _record(self, step: int) -> StepRecord:
        view, told = self.view, self.view.missing.or_default
        return StepRecord(
            step=step,
            actions=tuple(self._actions),
            chunked=name_of(view.chunked.rid) if view.chunked is not None else None,
            waiting=tuple(name_of(req.rid) for req in view.waiting),
            running=tuple(name_of(req.rid) for req in view.running),
            free_pages=told(lambda: len(view.now.free_pages), NOT_TOLD),
            free_rows=told(lambda: len(view.now.free_rows), NOT_TOLD),
            paused=told(lambda: view.paused, False),
            sent=tuple(told(lambda: _sent(rid, delta), name_of(rid)) for rid, delta in view.recorder.sent_in_step),
            **_last_batch(view.batches),
        )


def _last_batch(batches: list[Any]) -> dict[str, Any]:
    if not batches:
        return {}
    mode, rids = batches[-1]
    return {"mode": mode, "batch": tuple(name_of(rid) for rid in rids)}


def _sent(rid: str, delta: Any) -> str:
    text = f"{name_of(rid)} abort" if delta.aborted else f"{name_of(rid)} +{len(delta.tokens)}"
    if delta.finish is not None and not delta.aborted:
        text += f" finish:{delta.finish.get('type')}"
    return text
