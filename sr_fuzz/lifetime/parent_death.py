"""Ensures that no process outlives its parent, however the parent ends.

With ``prctl(PR_SET_PDEATHSIG)`` (see prctl(2)) Linux sends a process a signal when the *thread* that created it ends.
Each process of the local engine asks for SIGKILL, so ``kill -9`` of the user's process also ends the zygote, which ends
the configuration processes, which end the children. A process whose parent died before the call notices that it has
another parent now.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Interval of the checks whether the process that forked this one has ended; it ends within a millisecond.
_HANDOVER_S = 0.001


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL when the parent ends; exit at once if it has ended already. Call it directly after a fork."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, instead of the init process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def shed_threads(adopter_pid: int) -> None:
    """Continue in a copy of this process that has only the calling thread; the original ends.

    ``adopter_pid``: the parent, which has called `adopt_orphans`; the copy ends when it ends.
    """
    original = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == original:
        time.sleep(_HANDOVER_S)
    die_with_parent(adopter_pid)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
