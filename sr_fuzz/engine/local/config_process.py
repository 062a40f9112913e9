"""A configuration process: it boots one scheduler, then forks a child for each job and supervises it.

The scheduler in this process never makes a step, so each child starts from the same freshly booted state, and damage
done by a script ends with its child. A child that is killed by a signal, or a step of which exceeds its time limit, is
reported as a violation.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sr_fuzz.engine import outside
from sr_fuzz.engine.boot import Booted, boot
from sr_fuzz.engine.crash_outcomes import crashed, hung
from sr_fuzz.engine.local.child import play
from sr_fuzz.engine.process_messages import (
    ALIVE_S,
    Alive,
    Boot,
    Done,
    Execute,
    Failed,
    Lost,
    Ready,
    Run,
    decode_job,
    encode,
)
from sr_fuzz.engine.step_limit import Deadline, StepCounter
from sr_fuzz.faults import counts
from sr_fuzz.lifetime.parent_death import die_with_parent, shed_threads
from sr_fuzz.script.errors import EngineError

# Time for a hung child to dump its stack; faulthandler writes it from the signal handler, without the GIL.
_DUMP_S = 1.0


def serve(channel: Connection, request: Boot) -> None:
    """Boot and serve until the channel closes. It runs in its own process."""
    started = time.monotonic()
    zygote = os.getppid()
    try:
        booted = boot(request.config, request.faults)
    except EngineError as error:
        channel.send_bytes(encode(Failed(str(error))))
        return
    except BaseException as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        message = f"SGLang did not boot with this configuration: {type(error).__name__}: {line}"
        channel.send_bytes(encode(Failed(message, traceback.format_exc())))
        return
    # Objects that exist now stay alive: exclude them from garbage collection, which would copy their pages in every
    # child.
    gc.collect()
    gc.freeze()
    # Each thread of the process groups polls a hundred times a second although there is one rank. Forked children do
    # not have these threads anyway.
    shed_threads(zygote)
    channel.send_bytes(encode(Ready(booted.sglang_version, os.getpid(), time.monotonic() - started)))
    while True:
        try:
            job = decode_job(channel.recv_bytes())
        except EOFError:
            return
        channel.send_bytes(_run_in_child(booted, job, alive=lambda: channel.send_bytes(encode(Alive()))))


def _run_in_child(booted: Booted, job: Run | Execute, alive: Callable[[], None]) -> bytes:
    read_end, write_end = os.pipe()
    dump = os.memfd_create("stack")
    steps = StepCounter()
    started, oom_kills = time.monotonic(), outside.oom_kills()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        booted.hook.on_step = steps.set
        _child(booted, job, write_end, dump, parent)
    os.close(write_end)
    try:
        data, timed_out = _read_until(read_end, Deadline(job, pid, steps.get, alive))
        if timed_out:
            os.kill(pid, signal.SIGUSR1)
            _wait_exit(pid, _DUMP_S)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if data and not timed_out and status == 0:
            return data
        stack, step = _read_all(dump), steps.get()
    finally:
        os.close(read_end)
        os.close(dump)
        steps.close()
    if not timed_out and os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        if (reason := outside.why_killed(name, oom_kills, outside.oom_kills())) is not None:
            return encode(Lost(reason, stack))
    return encode(_died(booted, job, status, timed_out, stack, step=step, wall_s=time.monotonic() - started))


def _child(booted: Booted, job: Run | Execute, write_end: int, dump: int, parent: int) -> None:
    """Never returns."""
    code = 1
    try:
        die_with_parent(parent)
        faulthandler.enable(file=dump, all_threads=False)
        faulthandler.register(signal.SIGUSR1, file=dump, all_threads=False)
        data = encode(play(booted, job))
        with os.fdopen(write_end, "wb", closefd=False) as pipe:
            pipe.write(data)
        code = 0
    finally:
        os._exit(code)


def _read_until(fd: int, deadline: Callable[[], float]) -> tuple[bytes, bool]:
    """Read to the end of the pipe. Returns the data, and whether the deadline (which may move) passed first."""
    parts = []
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    while (left := deadline() - time.monotonic()) > 0:
        if not poller.poll(min(left, ALIVE_S) * 1000):
            continue
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts), False
        parts.append(part)
    return b"".join(parts), True


def _wait_exit(pid: int, seconds: float) -> None:
    """Wait for a process to react to a signal, without reaping it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.02)


def _read_all(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def _died(
    booted: Booted, job: Run | Execute, status: int, timed_out: bool, stack: str, *, step: int, wall_s: float
) -> Done | Failed:
    told: dict[str, Any] = {
        "sglang_version": booted.sglang_version, "step": step, "wall_s": wall_s, "faults": counts(),
    }  # fmt: skip
    if timed_out:
        return hung(job, stack, **told)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return crashed(job, name, f"the scheduler process died by {name}", stack, **told)
    return Failed(f"the child ended with status {os.waitstatus_to_exitcode(status)} and said nothing", stack)
