"""A patch that forks a server's processes from its main process, which has imported SGLang, instead of spawning them.

Each import of SGLang takes seconds. SGLang spawns its processes because CUDA cannot be used in a forked process.
Without a GPU nothing is lost: they are started with ``fork``, before the main process has a thread, an event loop or a
socket of its own. A data-parallel controller forks its schedulers from threads, with open sockets; these belong to the
controller's ZeroMQ context, which its children never use.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


def fork_processes(enter: Callable[[str], None]) -> None:
    """Fork instead of spawning from now on; ``enter(name of its function)`` is called first in each new process."""
    multiprocessing.set_start_method("fork", force=True)
    multiprocessing.set_start_method = _keep_the_method
    run = BaseProcess.run

    def entered(process: Any) -> None:
        _default_signals()
        enter(getattr(process._target, "__name__", ""))
        run(process)

    BaseProcess.run = entered


def _default_signals() -> None:
    """Restore the default signal handlers. SGLang's main process sets handlers that kill all its children."""
    for number in signal.valid_signals() - {signal.SIGINT}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _keep_the_method(method: str | None, force: bool = False) -> None:
    """Ignore a change of the start method: SGLang asks for ``spawn`` when it launches."""
