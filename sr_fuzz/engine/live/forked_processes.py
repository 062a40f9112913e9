"""The processes of a server forked from its main process, which has imported SGLang: each import takes seconds.

SGLang spawns them because CUDA cannot be used in a forked process. Without a GPU nothing is lost: what it does with a
start method is done with ``fork`` here, before its main process has a thread, an event loop or a socket of its own. A
data-parallel controller forks its schedulers from threads, with sockets open: they are the controller's, of a ZeroMQ
context that its children never use.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


def fork_processes(enter: Callable[[str], None]) -> None:
    """From now on, fork instead of spawning; ``enter(name of its function)`` comes first in each new process."""
    multiprocessing.set_start_method("fork", force=True)
    multiprocessing.set_start_method = _keep_the_method
    run = BaseProcess.run

    def entered(process: Any) -> None:
        _default_signals()
        enter(getattr(process._target, "__name__", ""))
        run(process)

    BaseProcess.run = entered


def _default_signals() -> None:
    """What a spawned process has: SGLang's main process sets handlers that kill all it has started."""
    for number in signal.valid_signals() - {signal.SIGINT}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _keep_the_method(method: str | None, force: bool = False) -> None:
    """SGLang asks for ``spawn`` when it launches."""
