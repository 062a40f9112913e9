"""When a script hangs: not after a time, however long it is, but when one of its steps takes too long.

The process that plays counts its steps in shared memory, so that another one sees that it makes progress, and which
step it did not come out of.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from sr_fuzz.engine.process_messages import Execute, Run
from sr_fuzz.script import Script, StartReq

_TOKENS = 10_000
"""Prompt tokens of a script that double the limit of its steps. On a quiet processor a step takes 0.05 to 0.1 ms for
each token that it reads, so this allows for one that is twenty times slower."""

_COUNT = struct.Struct("q")


def step_limit_s(script: Script, base_s: float) -> float:
    """Return the limit of a step in seconds: ``base_s``, and more for a script with long prompts or many of them.

    All of them may arrive in one step.
    """
    starts = (action for action in script.actions if isinstance(action, StartReq))
    return base_s * (1 + sum(start.prompt.length * start.n for start in starts) / _TOKENS)


class StepCounter:
    """The number of the step that is being made, in memory that several processes share."""

    def __init__(self, file: Path | None = None) -> None:
        """``file``: through which another process finds it; None: processes that are forked from this one share it."""
        if file is None:
            self._memory = mmap.mmap(-1, _COUNT.size)
            return
        with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as opened:
            opened.truncate(_COUNT.size)
            self._memory = mmap.mmap(opened.fileno(), _COUNT.size)

    def set(self, step: int) -> None:
        _COUNT.pack_into(self._memory, 0, step)

    def get(self) -> int:
        return _COUNT.unpack_from(self._memory)[0]

    def close(self) -> None:
        self._memory.close()


class Deadline:
    """When a job counts as hanging: a script a while after its last step, a script function after its start.

    Calling it gives that time, on the monotonic clock; it calls ``alive`` when the number of ``steps`` has changed.
    """

    def __init__(
        self, job: Run | Execute, pid: int, steps: Callable[[], int], alive: Callable[[], None] = lambda: None
    ) -> None:
        """``pid``: the process that plays; the time in which it waits for a processor does not count."""
        self._job = job
        self._pid = pid
        self._steps = steps
        self._alive = alive
        self._seen = 0
        self._since = time.monotonic() - kept_waiting_s(pid)

    def __call__(self) -> float:
        waited = kept_waiting_s(self._pid)
        steps = self._steps()
        if steps != self._seen:
            self._seen = steps
            self._alive()
            if isinstance(self._job, Run):
                self._since = time.monotonic() - waited
        return self._since + waited + self._job.limit_s


def kept_waiting_s(pid: int) -> float:
    """Return how long a process has waited for a processor so far."""
    try:
        # On Linux: time on the processor (ns), time waiting for one (ns), number of time slices.
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
