"""The keeper: a small process between the user's process and an engine's process tree, which cleans up after the tree.

`KeptProcess` starts it as ``python -m sr_fuzz.engine.live.keeper``. It creates a private folder (mode 0700, also
``TMPDIR`` of the tree), starts the command in a separate session, and adopts orphans of the command
(``PR_SET_CHILD_SUBREAPER``). When its standard input closes, because the engine is closed or because the user's process
died for any reason, it kills the tree, removes the folder and the shared memory that the tree had mapped, and ends.

A separate process is needed because SGLang's own shutdown waits for running requests, children and diagnostics (35 to
69 s on a CPU), and because a ``kill -9`` of its parent skips every clean-up in Python.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from sr_fuzz.lifetime.owned_folders import SHARED_MEMORY, OwnedFolder
from sr_fuzz.lifetime.parent_death import adopt_orphans

# Interval of the checks of the watched processes; a death is reported well within the two seconds promised to users.
_WATCH_S = 0.1

# A segment is mapped soon after it is created. One that the tree has not mapped after this number of checks belongs to
# another program.
_LOOKS_AT_SEGMENT = 20

# After SIGKILL a process ends within milliseconds; one that hangs in the kernel must not block the keeper for ever.
_KILL_S = 10.0

PROCESSES = "processes"
"""Subfolder of the private folder, in which each SGLang process writes a file, named by its pid, with its role."""


def main() -> None:
    adopt_orphans()
    # A core dump of a process with torch takes seconds, during which its death cannot be detected.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    line = sys.stdin.readline()
    if not line:
        return  # the user's process was killed before it sent what to start
    order = json.loads(line)
    owned = OwnedFolder()
    folder, segments = owned.path, _Segments(owned)
    try:
        for name, text in order["files"].items():
            (folder / name).write_text(text)
        process = _start(order["command"], order["environment"], folder)
        _say(folder=str(folder), pid=process.pid)
        _watch(process, folder, segments)
    finally:
        try:
            segments.look(_family())
        finally:
            _kill_all()
            owned.remove()


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
    """Watch until standard input closes; report the first death of the command or of a registered process."""
    reported = False
    poller = select.poll()
    poller.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    while not (poller.poll(_WATCH_S * 1000) and not os.read(sys.stdin.fileno(), 4096)):
        # Checked here, because the mappings of a process cannot be read after its death.
        segments.look_at_new()
        if not reported and (death := _death(process, folder)):
            _say(**death)
            reported = True


def _death(process: subprocess.Popen, folder: Path) -> dict[str, Any] | None:
    # Registered children are checked first: when they die, the process that started them usually follows.
    for entry in sorted((folder / PROCESSES).iterdir()):
        status = _ended(int(entry.name))
        if status is not None:
            return {"died": entry.read_text() or "process", "pid": int(entry.name), "status": status}
    status = process.poll()
    if status is not None:
        return {"died": "main process", "pid": process.pid, "status": _as_wait_status(status)}
    return None


def _ended(pid: int) -> int | None:
    """Return the wait status of a process that has ended, -1 if it is not available any more; None while it runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    # Fields 3 and 52 of proc(5): state and exit_code, the latter as a status of waitpid(2).
    return int(fields[49]) if fields[0] in "ZX" else None


def _as_wait_status(returncode: int) -> int:
    return -returncode if returncode < 0 else returncode << 8


class _Segments:
    """The shared memory of the tree: segments that appear while it runs and that one of its processes has mapped."""

    def __init__(self, folder: OwnedFolder) -> None:
        """``folder``: with which they are removed."""
        self._folder = folder
        # Existing segments belong to other programs, even if the tree maps them.
        self._others = set(os.listdir(SHARED_MEMORY))
        self._looks_left: dict[str, int] = {}
        self._ours: set[str] = set()

    def look_at_new(self) -> None:
        """Check for new segments.

        Without a new one this only lists the folder; otherwise it reads the maps of the tree's processes, which takes
        milliseconds.
        """
        for name in set(os.listdir(SHARED_MEMORY)) - self._others:
            self._looks_left.setdefault(name, _LOOKS_AT_SEGMENT)
        if any(self._looks_left[name] > 0 for name in self._looks_left.keys() - self._ours):
            self.look(_family())
            self._looks_left = {name: left - 1 for name, left in self._looks_left.items()}

    def look(self, family: list[psutil.Process]) -> None:
        appeared = set(os.listdir(SHARED_MEMORY)) - self._others
        if appeared:
            mapped = appeared & set().union(*(_mapped(process.pid) for process in family))
            if not mapped <= self._ours:
                self._ours |= mapped
                # At once, since this process may be killed before the tree ends.
                self._folder.note_segments(self._ours)


def _mapped(pid: int) -> set[str]:
    """Return the names of the shared memory segments that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = (line.partition(f"{SHARED_MEMORY}/")[2].removesuffix(" (deleted)") for line in lines)
    return {path for path in paths if path}


def _family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _kill_all() -> None:
    """Send SIGKILL to every descendant until none is left."""
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
        pass  # the user's process has ended, so standard input closes as well


if __name__ == "__main__":
    # Ctrl-C is handled by the user's process, which then closes the engine.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
