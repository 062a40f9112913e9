"""Plays one job on a booted scheduler, independent of what runs its event loop, and returns the result as data."""

from __future__ import annotations

import importlib
import logging
import time
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from msgspec.structs import replace

from sr_fuzz.engine.boot import Booted
from sr_fuzz.engine.process_messages import Done, Execute, Failed, Run
from sr_fuzz.engine.stacks import is_ours, locations, portable
from sr_fuzz.faults import counts, reset_counts
from sr_fuzz.invariants import select
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.play import randomness
from sr_fuzz.play.interpreter import Interpreter
from sr_fuzz.play.monitor import Monitor, ViolationFound
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.runtime.recorder import Stream
from sr_fuzz.script import script_hash
from sr_fuzz.sglang_api import session_clock
from sr_fuzz.view.view import SchedulerView, name_of

# Enough to see what led to a violation; SGLang repeats a few warnings on every retraction.
_LOG_LINES = 12

_IDLE_CHECKER = "managers/scheduler_components/invariant_checker.py:"


class _LogTail(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}"[:400])


class Player:
    """The state of one job on a booted scheduler. `generator` is given to the hook; `done` or `judge` ends the job."""

    def __init__(self, booted: Booted, job: Run | Execute, *, run_number: int | None = None) -> None:
        """``run_number``: set where scripts share a server, so that no request id is used twice."""
        self._booted = booted
        self._job = job
        self._notes: Sequence[str] | dict[str, None] = ()
        self.context = ScriptedContext(
            scheduler_hook=booted.hook,
            transport=booted.transport,
            flushes=lambda: booted.recorder.flushes,
            rid_suffix="." if run_number is None else f".{run_number}.",
        )
        self.view = SchedulerView(
            scheduler=booted.scheduler, context=self.context, recorder=booted.recorder, proxy=booted.proxy
        )
        self.monitor = Monitor(self.view, select(job.invariants))
        self._log = _LogTail()
        reset_counts()
        self._started = time.monotonic()

    def generator(self) -> Generator:
        """Return the script as a generator in which each ``yield`` is one step.

        Raises the error of a bad function path.
        """
        logging.getLogger().addHandler(self._log)
        self._started = time.monotonic()
        session_clock.begin_script(self._booted.scheduler)
        randomness.begin_script(self._booted.scheduler)
        if isinstance(self._job, Execute):
            return _called(self._job.path, _resolve(self._job.path), self.context, *self._job.args)
        interpreter = Interpreter(self._job.script, self.context, self.view, self.monitor)
        self._notes = interpreter.notes
        return interpreter.play()

    def done(self, violation: Violation | None = None, failure: str = "") -> Done:
        """Return the outcome of a script that has ended."""
        logging.getLogger().removeHandler(self._log)
        outcome = Outcome(
            script_hash=script_hash(self._job.script) if isinstance(self._job, Run) else "",
            sglang_version=self._booted.sglang_version,
            violation=violation,
            steps=self.monitor.steps,
            forwards=self.view.forward_steps,
            wall_s=time.monotonic() - self._started,
            trace=tuple(self.monitor.trace),
            checks=self.monitor.checks,
            no_subject=self.monitor.no_subject,
            not_checked=self.monitor.not_checked,
            coarse=self.monitor.coarse,
            outputs=self.view.missing.or_default(self._outputs, {}) if isinstance(self._job, Run) else {},
            log=tuple(self._log.lines) if violation is not None else (),
            not_played=self.monitor.not_played,
            not_counted=self.monitor.reach.not_counted,
            notes=tuple(self._notes),
            faults=counts(),
            reach=self.monitor.reach.counts,
        )
        return Done(outcome, failure)

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        streams = self._booted.recorder.streams.values()
        return {name_of(s.rid): tuple(s.tokens) for s in streams if _ran_to_its_end(s)}

    def loop_left(self) -> Done:
        """Return the outcome of a script during which SGLang's event loop returned by itself."""
        step = self.monitor.steps + 1
        return self.done(Violation("exception", "loop_left", "SGLang left its event loop by itself", step))

    def judge(self, error: BaseException) -> Done | Failed:
        """Return the result of a script that raised: a violation, an error of SGLang, of the script, or of sr_fuzz."""
        if isinstance(error, ViolationFound):
            return self.done(error.violation)
        if not is_ours(error.__traceback__):
            return self.done(self._exception(error))
        text = "".join(traceback.format_exception(error))
        if isinstance(self._job, Execute):
            return self.done(failure=text)
        logging.getLogger().removeHandler(self._log)
        return Failed(f"sr_fuzz itself failed: {error!r}", text)

    def _exception(self, error: BaseException) -> Violation:
        step = self.monitor.steps + 1
        text = str(error).strip()
        places = locations(error.__traceback__)
        # SGLang's own idle check reports by raising; it is treated like an invariant of ours and has a name like one.
        own_check = any(place.startswith(_IDLE_CHECKER) for place in places)
        if own_check:
            # SGLang's check only counts; our invariants name the pages and their owners, so they take precedence.
            try:
                self.monitor.end_step(step)
            except ViolationFound as found:
                message = f"{found.violation.message} (SGLang's idle check says: {text[:300]})"
                return replace(found.violation, message=message)
        else:
            self.monitor.record_unfinished_step()
        return Violation(
            invariant="sglang_idle_check" if own_check else "exception",
            rule="failed" if own_check else type(error).__name__,
            message=f"SGLang raised {type(error).__name__}: {text[:600] or '(no message)'}",
            step=step,
            location=places,
            stack=portable("".join(traceback.format_exception(error))),
        )


def _ran_to_its_end(stream: Stream) -> bool:
    ends = (delta.finish or {} for delta in stream.deltas if not delta.aborted)
    return any(end.get("type") in ("length", "stop") for end in ends)


def _called(path: str, function: Any, *args: Any) -> Generator:
    """The function's generator. An exception of the call is raised by the generator, at the start of the first step."""
    script = function(*args)
    if not isinstance(script, Generator):
        raise TypeError(f"{path} returned {type(script).__name__}; a script function is a generator")
    yield from script


def _resolve(path: str) -> Any:
    module_name, _, qualname = path.partition(":")
    if not module_name or not qualname:
        raise ValueError(f"script function {path!r}: expected `module:function`")
    target: Any = importlib.import_module(module_name)
    for part in qualname.split("."):
        target = getattr(target, part)
    if not callable(target):
        raise TypeError(f"script function {path!r}: not callable")
    return target
