"""Code that is run in a process of its own, because it is to be killed, or meets a limit that ends with the process."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable


def forked(work: Callable[[], None], *, max_file_bytes: int | None = None) -> int:
    """Run ``work`` in a forked process; returns its exit status, or minus the signal that ended it.

    ``max_file_bytes``: no file may grow beyond this, as on a full disk. An exception of ``work`` is printed, status 1.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if max_file_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails with an error
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
            work()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
