"""The side of a live scheduler in the user's process: it starts the scheduler, sends jobs and detects its end.

A live scheduler plays one script after another in one process. An early end is returned as a violation of the script
that was being played: an exception (reported by the scheduler itself), a crash (detected by the keeper), or a hang (a
time-out here, with the stack of the scheduler). After any of these the scheduler is dead. It also counts as dead when
it could not be emptied after a script. `problem` then says why, and the owner starts another scheduler.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from sr_fuzz.cpu import standins
from sr_fuzz.engine import outside
from sr_fuzz.engine.crash_outcomes import crashed, hung
from sr_fuzz.engine.environment import LIVE
from sr_fuzz.engine.live.channel import Channel
from sr_fuzz.engine.live.keeper_client import KeptProcess
from sr_fuzz.engine.process_messages import (
    PROTOCOL,
    SETTINGS,
    SOCKET,
    STACKS,
    STEPS,
    Attached,
    Done,
    Execute,
    Failed,
    LiveReply,
    Reset,
    Run,
    decode_live_reply,
)
from sr_fuzz.engine.step_limit import Deadline, StepCounter
from sr_fuzz.faults import ENVIRONMENT_VARIABLE as FAULTS
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, NotPlayed, ProcessLost

# Often enough that a death is reported well within the two seconds promised to users.
_POLL_S = 0.05
# Time for a hanging scheduler to dump its stack; faulthandler does not need the GIL for it.
_DUMP_S = 1.0
# Limit of the reset after a job; draining, flushing and the HTTP responses have their own limits well below this.
_RESET_S = 60.0
# Time to read a message that was sent just before the end of the process.
_LAST_WORDS_S = 0.3
# Three looks of the keeper: a process of the server that died has been reported after that time.
_REPORT_S = 0.3

_ERROR = re.compile(r"[\w.]*(?:Error|Exception|UnsupportedVersion): ")
"""The last line of a traceback in a log."""


class LiveScheduler:
    """One scheduler process, from its start to `close`."""

    def __init__(
        self,
        module: str,
        *,
        settings: bytes,
        environment: Mapping[str, str],
        start_limit_s: float,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start ``python -m module FOLDER`` and wait for its `Attached`, then until ``ready()``.

        ``settings``: JSON for the module, which reads it from its folder. Raises `EngineError`.
        """
        command = [sys.executable, "-m", module, "{folder}"]
        self._process = KeptProcess(
            command, {**environment, LIVE: "{folder}"}, files={SETTINGS: settings.decode()}
        )
        self.problem: str | None = None
        """Why it can play no further jobs; None while it can."""
        self.lost: str | None = None
        """How one of its processes was ended from outside while no job was played; None if none was."""
        self._oom_kills, self._log_at = outside.oom_kills(), 0
        self._resetting = False
        try:
            self._steps = StepCounter(self._process.folder / STEPS)
            self._channel = Channel(self._process.folder / SOCKET, bind=True)
        except BaseException:
            self._process.close()
            raise
        try:
            self.attached = self._await_start(start_limit_s, ready)
        except BaseException:
            self.close()
            raise

    @property
    def sglang_version(self) -> str:
        return self.attached.sglang_version

    @property
    def pid(self) -> int:
        """Process id of the scheduler process that plays."""
        return self.attached.pid

    @property
    def folder(self) -> Path:
        """The private folder of its processes."""
        return self._process.folder

    def log_tail(self) -> str:
        return self._process.log_tail()

    def is_usable(self) -> bool:
        """Whether it can play; waits for the reset after the last script. If it cannot, `problem` says why."""
        self._await_reset()
        if self.problem is None:
            self.problem = self._process.death()
            self.lost = self._ended_from_outside() if self.problem is not None else None
        return self.problem is None

    def submit(self, job: Run | Execute) -> Done:
        """Play a job; raises `EngineError` when that is not possible. Check `problem` before the next job."""
        if not self.is_usable():
            raise EngineError(f"the engine can play no more: {self.problem}")
        started = time.monotonic()
        self._oom_kills, self._log_at = outside.oom_kills(), self._process.log_size()
        self._steps.set(0)
        reply = None
        with contextlib.suppress(zmq.Again):  # its socket is gone, so it has ended
            self._channel.send(job)
            reply = self._receive(Deadline(job, self.pid, self._steps.get))
        if reply is None or _tells_of_a_broken_server(reply):
            self._raise_if_lost()
        if reply is None:
            self.problem = self._process.death() or f"no step was made within {job.limit_s:g} s"
            return self._ended(job, time.monotonic() - started)
        if isinstance(reply, Failed):
            self._resetting = True
            raise NotPlayed(f"{reply.message}\n{reply.detail}".rstrip())
        if not isinstance(reply, Done):
            self.problem = f"it answered a job with {type(reply).__name__}"
            raise EngineError(f"the engine can play no more: {self.problem}")
        self._resetting = True
        violation = reply.outcome.violation
        if violation is not None and violation.invariant == "exception":
            self.problem = f"SGLang's scheduler ended by an exception: {violation.message.splitlines()[0]}"
        return reply

    def close(self) -> None:
        """End all its processes, and remove the files and shared memory that they left. Idempotent."""
        self.problem = self.problem or "it was shut down"
        self._channel.close()
        self._steps.close()
        self._process.close()

    def _raise_if_lost(self) -> None:
        """Raise `ProcessLost` if a process was ended from outside; what the scheduler says then is a consequence."""
        deadline = time.monotonic() + _REPORT_S  # a job may fail before the keeper has told why
        while self._process.death() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        lost = self._ended_from_outside()
        if lost is not None:
            self.problem = lost
            raise ProcessLost(lost)

    def _ended_from_outside(self) -> str | None:
        """Return how a process was ended from outside since the last job began; None if none was."""
        if self._process.is_unwatched:
            return self._process.death()
        if self._process.death() is None:
            return None
        reason = outside.why_killed(self._signal_name(), self._oom_kills, outside.oom_kills())
        return None if outside.ended_by_sglang(self._process.log_since(self._log_at)) else reason

    def _signal_name(self) -> str:
        # The server's main process may have reaped it before the keeper saw it, and has then logged how it ended.
        logged = outside.signal_in(self._process.log_since(self._log_at))
        return self._process.death_signal or logged or "ended"

    def _await_start(self, limit_s: float, ready: Callable[[], bool]) -> Attached:
        deadline = time.monotonic() + limit_s
        first = self._receive(lambda: deadline)
        if isinstance(first, Failed):
            raise ConfigNotBooted(f"{first.message}\n{first.detail}".rstrip())
        if not isinstance(first, Attached):
            raise self._no_start(limit_s)
        if first.protocol != PROTOCOL:
            raise EngineError(
                f"the scheduler process speaks protocol {first.protocol}, this one {PROTOCOL}: two versions of sr_fuzz "
                "are installed; `sr-fuzz doctor` shows from where"
            )
        while not ready():
            if self._process.death() is not None or time.monotonic() > deadline:
                raise self._no_start(limit_s)
            time.sleep(_POLL_S)
        return first

    def _no_start(self, limit_s: float) -> EngineError:
        death = self._process.death() or f"it was not ready within {limit_s:g} s"
        # When one process fails SGLang kills the others. The log shows which error came first; the reported death does
        # not.
        errors = [line for line in self._process.log_tail(200).splitlines() if _ERROR.match(line)]
        if not errors and (lost := self._ended_from_outside()) is not None:
            return ProcessLost(f"{lost}, while it started\n{self._process.log_tail()}")
        why = errors[0][:400] if errors else death
        return EngineError(f"the engine did not start: {why}\n{self._process.log_tail()}")

    def _receive(self, deadline: Callable[[], float]) -> LiveReply | None:
        """Return the next message; None at the deadline, which may move, or when a process has died."""
        while True:
            data = self._channel.receive(_POLL_S)
            if data is None and self._process.death() is not None:
                data = self._channel.receive(_LAST_WORDS_S)
                if data is None:
                    return None
            if data is not None:
                return decode_live_reply(data)
            if time.monotonic() > deadline():
                return None

    def _await_reset(self) -> None:
        if not self._resetting or self.problem is not None:
            return
        self._resetting = False
        deadline = time.monotonic() + _RESET_S
        reply = self._receive(lambda: deadline)
        if isinstance(reply, Reset):
            self.problem = f"it could not be emptied after a script: {reply.problem}" if reply.problem else None
        elif isinstance(reply, Failed):
            self.problem = f"{reply.message} (after a script)"
        else:
            self.problem = self._process.death() or f"it was not emptied within {_RESET_S:g} s after a script"
            self.lost = self._ended_from_outside()

    def _ended(self, job: Run | Execute, wall_s: float) -> Done:
        death = self._process.death()
        if death is None:
            self._ask_for_stack()
        attached = self.attached
        told: dict[str, Any] = {
            "sglang_version": attached.sglang_version, "step": self._steps.get(), "wall_s": wall_s,
            "package": attached.sglang_folder,
        }  # fmt: skip
        if death is None:
            return hung(job, self._stack(), **told)
        return crashed(job, self._signal_name(), death, self._stack(), **told)

    def _ask_for_stack(self) -> None:
        try:
            os.kill(self.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _DUMP_S
        seen = ""
        # The file is written line by line; it is complete once it has stopped growing.
        while time.monotonic() < deadline:
            time.sleep(_POLL_S)
            now = self._stack()
            if now and now == seen:
                return
            seen = now

    def _stack(self) -> str:
        try:
            return (self._process.folder / STACKS).read_text(errors="replace")
        except OSError:
            return ""


def _tells_of_a_broken_server(reply: LiveReply) -> bool:
    """Whether the scheduler says what it would also say when another process of the server has just died."""
    if isinstance(reply, Done) and reply.outcome.violation is not None:
        return reply.outcome.violation.invariant in ("http_answers", "exception")
    return isinstance(reply, Failed)


def process_environment(device: str, *, faults: Sequence[str] = (), sys_path: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of an engine's processes: faults by import path, and the folders to import them from."""
    base = dict(os.environ) | standins.environment()
    if device == "cpu":
        base |= {standins.WANTED: "1"} | standins.WITHOUT_GPU
    paths = [*map(str, sys_path), *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    base["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if faults:
        base[FAULTS] = ",".join(faults)
    return base


def encode_settings(settings: object) -> bytes:
    """Encode as JSON. Raises `EngineError` for values that JSON cannot represent."""
    try:
        return msgspec.json.encode(settings)
    except TypeError as error:
        raise EngineError(f"engine settings must be plain data: {error}") from None
