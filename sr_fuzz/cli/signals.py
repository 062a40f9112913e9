"""SIGTERM handled like Ctrl-C, so that a command can end its work first, and the exit status of a stopped command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sr_fuzz.cli.statuses import INTERRUPTED, TERMINATED

# The signal is remembered here, not in the exception: Typer turns any KeyboardInterrupt into an exception of its own.
_stopped_by: list[int] = []


def stopped_status() -> int:
    """Return the exit status of a command that a signal has stopped."""
    return TERMINATED if signal.SIGTERM in _stopped_by else INTERRUPTED


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    _stopped_by.append(number)
    raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[None]:
    """While inside, SIGTERM raises ``KeyboardInterrupt``. Outside the main thread this does nothing."""
    _stopped_by.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
