"""Making sure that nothing outlives its parent, however the parent ends.

Linux sends a process the signal it asked for when the *thread* that created it ends (``prctl(PR_SET_PDEATHSIG)``, see
prctl(2)). Each process of the local engine asks for SIGKILL, so ``kill -9`` of the user's process takes the zygote with
it, the zygote's end takes the configuration processes, and theirs the children. A process whose parent died before it
could ask notices that its parent is another one now.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Between two looks at whether the process that forked this one is gone; it ends within a millisecond.
_HANDOVER_S = 0.001


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL at the parent's end; end at once if it is gone already. Call it first thing after a fork."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of processes further down whose own parent ends, instead of the machine's first process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def shed_threads(adopter_pid: int) -> None:
    """Go on in a copy of this process that has its calling thread alone; the original ends.

    ``adopter_pid``: its parent, which has called `adopt_orphans`, and which the copy dies with.
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
