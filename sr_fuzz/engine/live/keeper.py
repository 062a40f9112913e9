"""The keeper: a small process between the user's and an engine's tree of processes, which leaves nothing behind.

Started by `KeptProcess` as ``python -m sr_fuzz.engine.live.keeper``. It makes a private folder (mode 0700, also
``TMPDIR`` of the tree), starts the command in a session of its own, and adopts whatever that orphans
(``PR_SET_CHILD_SUBREAPER``). When its standard input closes, because it was asked to or because the user's process died
of whatever cause, it kills the tree, removes the shared memory that the tree had mapped and the folder, and ends.

SGLang's own shutdown waits for running requests, children and diagnostics, 35 to 69 s on a CPU; and a ``kill -9`` of
its parent skips every clean-up in Python: hence a process that does nothing but this.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from sr_fuzz.engine.parent_death import adopt_orphans

# How often the watched processes are looked at: a death is reported a good deal faster than the two seconds promised.
_WATCH_S = 0.1

# A segment is mapped soon after it was made; one that the tree has not mapped after so many looks is somebody else's.
_LOOKS_AT_SEGMENT = 20

# After SIGKILL a process is gone in milliseconds; one that hangs in the kernel must not hold the keeper for ever.
_KILL_S = 10.0

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = "processes"
"""Folder in the private one: each SGLang process puts a file there, named by its pid, that says what it is."""


def main() -> None:
    adopt_orphans()
    # Writing the core of a process with torch in it takes seconds, in which its death goes unseen.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    line = sys.stdin.readline()
    if not line:
        return  # the user's process was killed before it could say what to start
    order = json.loads(line)
    folder = Path(tempfile.mkdtemp(prefix="sr-fuzz-"))
    segments = _Segments()
    try:
        for name, text in order["files"].items():
            (folder / name).write_text(text)
        process = _start(order["command"], order["environment"], folder)
        _say(folder=str(folder), pid=process.pid)
        _watch(process, folder, segments)
    finally:
        segments.look(_family())
        _kill_all()
        segments.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _start(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen:
    (folder / "tmp").mkdir()
    (folder / PROCESSES).mkdir()
    filled = [part.replace("{folder}", str(folder)) for part in command]
    own = {name: value.replace("{folder}", str(folder)) for name, value in environment.items()}
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            filled,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=own | {"TMPDIR": str(folder / "tmp")},
            start_new_session=True,
        )


def _watch(process: subprocess.Popen, folder: Path, segments: _Segments) -> None:
    """Until standard input closes; reports the first death among the processes that matter."""
    reported = False
    poller = select.poll()
    poller.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    while not (poller.poll(_WATCH_S * 1000) and not os.read(sys.stdin.fileno(), 4096)):
        # Now, since of a process that has died nobody can tell any more.
        segments.look_at_new()
        if not reported and (death := _death(process, folder)):
            _say(**death)
            reported = True


def _death(process: subprocess.Popen, folder: Path) -> dict[str, Any] | None:
    # Registered children first: when they die, the process that started them mostly follows.
    for entry in sorted((folder / PROCESSES).iterdir()):
        status = _ended(int(entry.name))
        if status is not None:
            return {"died": entry.read_text() or "process", "pid": int(entry.name), "status": status}
    status = process.poll()
    if status is not None:
        return {"died": "main process", "pid": process.pid, "status": _as_wait_status(status)}
    return None


def _ended(pid: int) -> int | None:
    """Wait status of a process that is over, -1 when nobody can tell any more; None while it runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    # Fields 3 and 52 of proc(5): state and exit_code, the latter in the form of waitpid(2).
    return int(fields[49]) if fields[0] in "ZX" else None


def _as_wait_status(returncode: int) -> int:
    return -returncode if returncode < 0 else returncode << 8


class _Segments:
    """The shared memory that the tree makes: what appears while it runs, and is mapped by one of its processes."""

    def __init__(self) -> None:
        # What is there already, and may be mapped by the tree all the same, is somebody else's.
        self._others = set(os.listdir(SHARED_MEMORY))
        self._looks_left: dict[str, int] = {}
        self._ours: set[str] = set()

    def look_at_new(self) -> None:
        """Cheap while nothing appears: a listing; else the maps of the tree's processes, which take milliseconds."""
        for name in set(os.listdir(SHARED_MEMORY)) - self._others:
            self._looks_left.setdefault(name, _LOOKS_AT_SEGMENT)
        if any(self._looks_left[name] > 0 for name in self._looks_left.keys() - self._ours):
            self.look(_family())
            self._looks_left = {name: left - 1 for name, left in self._looks_left.items()}

    def look(self, family: list[psutil.Process]) -> None:
        appeared = set(os.listdir(SHARED_MEMORY)) - self._others
        if appeared:
            self._ours |= appeared & set().union(*(_mapped(process.pid) for process in family))

    def remove(self) -> None:
        for name in self._ours:
            (SHARED_MEMORY / name).unlink(missing_ok=True)


def _mapped(pid: int) -> set[str]:
    """Names of the shared memory that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = (line.partition(f"{SHARED_MEMORY}/")[2].removesuffix(" (deleted)") for line in lines)
    return {path for path in paths if path}


def _family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _kill_all() -> None:
    """SIGKILL to every descendant until none is left."""
    deadline = time.monotonic() + _KILL_S
    while time.monotonic() < deadline:
        family = _family()
        if not family:
            return
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                pass
        _reap()
        time.sleep(0.01)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _say(**message: Any) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # the user's process is gone; the end of standard input says so too


if __name__ == "__main__":
    # Ctrl-C is for the user's process, which closes the engine in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
