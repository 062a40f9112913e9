"""A process tree that cannot outlive this process, and that leaves no process, file or shared memory behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sr_fuzz.lifetime.owned_folders import remove_leftovers
from sr_fuzz.script.errors import EngineError, ProcessLost

# The keeper imports little more than the standard library; a busy machine may still need some time for it.
_START_LIMIT_S = 30.0

# Five times the three seconds promised to users: a clean-up that takes longer is stuck, which is reported.
_CLOSE_LIMIT_S = 15.0

_END_S = 1.0

_GONE = "the process that watches over the engine was ended from outside"


class KeptProcess:
    """Runs ``command`` under a keeper.

    ``{folder}`` in its arguments and environment is replaced by the private folder.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, files: Mapping[str, str] | None = None
    ) -> None:
        """``files``: texts that are written into the private folder before the command starts, by file name."""
        remove_leftovers()
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "sr_fuzz.engine.live.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=dict(environment),
        )
        self._buffer = b""
        self._death: dict[str, Any] | None = None
        order = json.dumps(
            {"command": list(command), "environment": dict(environment), "files": dict(files or {})}
        )
        try:
            hello = self._order(order)
        except BaseException:
            self.close()
            raise
        self.folder = Path(hello["folder"])
        self.pid: int = hello["pid"]

    def _order(self, order: str) -> dict[str, Any]:
        try:
            self._keeper.stdin.write(order.encode() + b"\n")
            self._keeper.stdin.flush()
            hello = self._read(_START_LIMIT_S)
        except BrokenPipeError:
            hello = None
        if hello is None:
            if self._ends():
                raise ProcessLost(_GONE)
            raise EngineError(f"the process that watches over the engine said nothing within {_START_LIMIT_S:g} s")
        return hello

    def _ends(self) -> bool:
        """Whether it ends now; its pipes are closed a moment before the kernel says so."""
        try:
            self._keeper.wait(_END_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def is_unwatched(self) -> bool:
        """Whether the keeper has ended, which it does by itself only when it is told to. Its tree ends with it."""
        return self._keeper.poll() is not None

    @property
    def keeper_pid(self) -> int:
        return self._keeper.pid

    def death(self) -> str | None:
        """Return one sentence on the first process of the tree that ended; None while all of them run."""
        if self._death is None:
            self._death = self._read(0.0)
        if self._death is None:
            return None if self._keeper.poll() is None else _GONE
        return f"{self._death['died']} (pid {self._death['pid']}) {ending(self._death['status'])}"

    @property
    def death_signal(self) -> str | None:
        """The name of the signal that ended that process; None if no signal did."""
        status = (self._death or {}).get("status", 0)
        return signal.Signals(os.WTERMSIG(status)).name if status > 0 and os.WIFSIGNALED(status) else None

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that the processes printed."""
        try:
            text = (self.folder / "log").read_bytes()[-16384:].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def log_size(self) -> int:
        """Return how many bytes the processes have printed so far."""
        try:
            return (self.folder / "log").stat().st_size
        except OSError:
            return 0

    def log_since(self, size: int) -> str:
        """Return what they have printed since `log_size` was ``size``."""
        try:
            return (self.folder / "log").read_bytes()[size:].decode(errors="replace")
        except OSError:
            return ""

    def close(self) -> None:
        """Kill the tree and remove the files and shared memory that it left. Idempotent."""
        if self._keeper.stdin and not self._keeper.stdin.closed:
            try:
                self._keeper.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._keeper.wait(_CLOSE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            raise EngineError(f"the engine's processes were not gone within {_CLOSE_LIMIT_S:g} s") from None
        finally:
            self._keeper.stdout.close()
        if self._keeper.returncode < 0:
            remove_leftovers()  # it was killed, and its tree has ended with it

    def _read(self, wait_s: float) -> dict[str, Any] | None:
        """Return the keeper's next message; None when none arrives within ``wait_s`` seconds."""
        if self._keeper.stdout.closed:
            return None
        fd = self._keeper.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([fd], [], [], wait_s)[0]:
                return None
            part = os.read(fd, 4096)
            if not part:
                return None
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


def ending(status: int) -> str:
    """Describe how a process ended, from its wait status; -1 means unknown."""
    if status < 0:
        return "ended"
    if os.WIFSIGNALED(status):
        return f"died by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit status {os.waitstatus_to_exitcode(status)}"
