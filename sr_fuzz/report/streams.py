"""Standard output and standard error that any text can be written to, whatever the terminal, the pipe or the disk."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO


def make_usable() -> None:
    """Open what is closed, and let characters be escaped that the encoding of a terminal or a file does not have.

    A file that is opened while a standard stream is closed would get its number, and what a library prints would be
    written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        # A name of a file may have bytes that are no text, and an ASCII terminal has no "…".
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write out what was printed. Raises `OSError`: what a command says counts only when it has been written."""
    sys.stdout.flush()


def give_up_output() -> None:
    """Let what could not be written out be lost, so that the interpreter does not try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def discard(stream: IO[str]) -> None:
    """Send what is still to come, what is in the buffer included, to nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor, or a closed one, keeps nothing
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
