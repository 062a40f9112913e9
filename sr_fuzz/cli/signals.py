"""SIGTERM and SIGHUP handled like Ctrl-C, so that a command can end its work first, and its exit status then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from sr_fuzz.cli.statuses import HUNG_UP, INTERRUPTED, TERMINATED

_STATUSES = {signal.SIGTERM: TERMINATED, signal.SIGHUP: HUNG_UP}

# The signal is remembered here, not in the exception: Typer turns any KeyboardInterrupt into an exception of its own.
_stopped_by: list[int] = []


def stopped_status() -> int:
    """Return the exit status of a command that a signal has stopped."""
    return next((status for number, status in _STATUSES.items() if number in _stopped_by), INTERRUPTED)


def _stop(number: int, _frame: FrameType | None) -> None:
    _stopped_by.append(number)
    raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP raise ``KeyboardInterrupt``. Outside the main thread this does nothing.

    SIGHUP says that the terminal is closed. Where it is ignored, as under ``nohup``, it stays ignored.
    """
    _stopped_by.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as restored:
        for number in _STATUSES:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                signal.signal(number, _stop)
                restored.callback(signal.signal, number, before)
        yield
