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

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL at the parent's end; end at once if it is gone already. Call it first thing after a fork."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent_pid:
        os._exit(1)
