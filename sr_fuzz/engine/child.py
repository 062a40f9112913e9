"""What a child does: play one script on the scheduler it was forked with, and say how it went."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Generator
from typing import Any

from msgspec.structs import replace

from invariants import select
from sr_fuzz.engine.boot import Booted
from sr_fuzz.engine.stacks import is_ours, locations
from sr_fuzz.engine.wire import Done, Execute, Failed, Run
from sr_fuzz.interpreter import Interpreter
from sr_fuzz.monitor import Monitor, ViolationFound
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.runtime.hook import ScriptEnded
from sr_fuzz.runtime.transport import LocalTransport
from sr_fuzz.script import script_hash
from sr_fuzz.view.view import SchedulerView

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
    """Everything one run needs, around a booted scheduler."""

    def __init__(self, booted: Booted, invariants: tuple[str, ...] | None) -> None:
        self._booted = booted
        self.context = ScriptedContext(
            scheduler_hook=booted.hook,
            transport=LocalTransport(booted.proxy),
            flushes=lambda: booted.recorder.flushes,
        )
        self.view = SchedulerView(
            scheduler=booted.scheduler, context=self.context, recorder=booted.recorder, proxy=booted.proxy
        )
        self.monitor = Monitor(self.view, select(invariants))
        self._log = _LogTail()

    def run(self, generator: Generator, *, script_hash: str, notes: Any = ()) -> Done | Failed:
        """Turn SGLang's event loop until the generator ends or something breaks."""
        logging.getLogger().addHandler(self._log)
        started = time.monotonic()
        self._booted.hook.begin(generator, observer=self.monitor, proxy=self._booted.proxy)
        violation, failure = None, ""
        try:
            self._booted.scheduler.run_event_loop()
            violation = Violation("exception", "loop_left", "SGLang left its event loop by itself", self._step)
        except ScriptEnded:
            pass
        except ViolationFound as found:
            violation = found.violation
        except BaseException as error:
            if is_ours(error.__traceback__):
                if not isinstance(error, AssertionError) or script_hash:
                    return Failed(f"sr_fuzz itself failed: {error!r}", traceback.format_exc())
                failure = traceback.format_exc()
            else:
                violation = self._exception(error)
        outcome = Outcome(
            script_hash=script_hash,
            sglang_version=self._booted.sglang_version,
            violation=violation,
            steps=self.monitor.turns,
            forwards=self.view.forward_steps,
            wall_s=time.monotonic() - started,
            trace=tuple(self.monitor.trace),
            checks=self.monitor.checks,
            not_checked=self.monitor.not_checked,
            log=tuple(self._log.lines) if violation is not None else (),
            notes=tuple(notes),
        )
        return Done(outcome, failure)

    @property
    def _step(self) -> int:
        return self.monitor.turns + 1

    def _exception(self, error: BaseException) -> Violation:
        text = str(error).strip()
        places = locations(error.__traceback__)
        # SGLang's own idle check reports by raising; it is a checker like ours, and named as one.
        own_check = any(place.startswith(_IDLE_CHECKER) for place in places)
        if own_check:
            # It counts, ours name the pages and who had them: they get the first word.
            try:
                self.monitor.end_turn(self._step)
            except ViolationFound as found:
                message = f"{found.violation.message} (SGLang's idle check says: {text[:300]})"
                return replace(found.violation, message=message)
        else:
            self.monitor.record_unfinished_turn()
        return Violation(
            invariant="sglang_idle_check" if own_check else "exception",
            rule="failed" if own_check else type(error).__name__,
            message=f"SGLang raised {type(error).__name__}: {text[:600] or '(no message)'}",
            step=self._step,
            location=places,
            stack="".join(traceback.format_exception(error)),
        )


def play(booted: Booted, job: Run | Execute) -> Done | Failed:
    """Play a job; whatever goes wrong comes back as data."""
    try:
        player = Player(booted, job.invariants)
        if isinstance(job, Run):
            interpreter = Interpreter(job.script, player.context, player.view, player.monitor)
            return player.run(interpreter.play(), script_hash=script_hash(job.script), notes=interpreter.notes)
        function = _resolve(job.path)
        return player.run(function(player.context, *job.args), script_hash="")
    except Exception as error:
        return Failed(f"sr_fuzz itself failed: {error!r}", traceback.format_exc())


def _resolve(path: str) -> Any:
    import importlib

    module_name, _, qualname = path.partition(":")
    if not module_name or not qualname:
        raise ValueError(f"script function {path!r}: expected `module:function`")
    target: Any = importlib.import_module(module_name)
    for part in qualname.split("."):
        target = getattr(target, part)
    return target
