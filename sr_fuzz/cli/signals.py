"""SIGTERM handled like Ctrl-C in Python: it raises an exception, so that the command can clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sr_fuzz.cli.statuses import INTERRUPTED, TERMINATED


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class Stopped:
    """The signal that has stopped a command, if any."""

    def __init__(self) -> None:
        self.by_sigterm = False

    @property
    def status(self) -> int:
        """The exit status of a command that a signal has stopped."""
        return TERMINATED if self.by_sigterm else INTERRUPTED

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self.by_sigterm = True
        raise Terminated


@contextmanager
def terminable() -> Iterator[Stopped]:
    """While the context is active, SIGTERM raises `Terminated`. No effect outside the main thread."""
    stopped = Stopped()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, stopped._on_sigterm)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
