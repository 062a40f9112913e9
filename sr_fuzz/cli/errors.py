"""Error reporting: an error is exactly one line on standard error, with exit status 2."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable

import typer

from sr_fuzz.cli.signals import stopped_status, terminable
from sr_fuzz.cli.statuses import ERROR, INTERRUPTED
from sr_fuzz.cli.storage import keep_current_folder_clean
from sr_fuzz.report.streams import flush, give_up_output, make_usable

# Enough for the longest path of a file and what is said of it; no error needs more than a screenful.
_MOST_SHOWN = 1200

_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF)
"""What writing to a closed pipe, a full disk or a terminal that is gone ends with."""


class InputError(Exception):
    """The user's input is invalid. The message is one line."""


def exit_status(command: Callable[[], object]) -> int:
    """Run ``command`` and return its exit status.

    An error is printed, and the status is `ERROR`: any other status is an answer to what was asked, and what ends a
    command by itself, an error of our own or a ``sys.exit`` in a file of the user's, is none.
    """
    from sr_fuzz.bugs.known import KnownError
    from sr_fuzz.emit.public_api import NotExpressible
    from sr_fuzz.script import ScriptError
    from sr_fuzz.script.errors import EngineError
    from sr_fuzz.script.wording import first_and_last

    make_usable()
    keep_current_folder_clean()
    try:
        with terminable():
            _check_current_folder()
            status = command()
            if status != INTERRUPTED:
                flush()
    except (InputError, ScriptError, KnownError) as error:
        return _fail(str(error))
    except NotExpressible as error:
        return _fail(f"SGLang's own scripted runtime cannot show it: {error}")
    except EngineError as error:
        return _fail(first_and_last(str(error)))
    except (KeyboardInterrupt, typer.Abort):
        give_up_output()
        return stopped_status()
    except OSError as error:
        return _fail(_system_error(error))
    except SystemExit as error:
        # Rich ends the interpreter where the reader of a help text has gone. Files of the user's are asked for theirs
        # when they are read.
        return _fail("standard output: its reader has ended" if error.code == 1 else _own_failure(error))
    except BaseException as error:
        # Usage errors of Typer have a base class that has been in two packages; all of them have ``format_message``.
        return _fail(error.format_message() if hasattr(error, "format_message") else _own_failure(error))
    if status == INTERRUPTED:
        give_up_output()
        return stopped_status()  # Typer's own answer to a KeyboardInterrupt, whichever signal raised it
    return status if isinstance(status, int) else 0


def _check_current_folder() -> None:
    """Refuse a current folder that was removed: libraries fail there in ways of their own, some of them fatally."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the current folder does not exist any more; change to another one") from None


def _fail(message: str) -> int:
    from sr_fuzz.script.wording import one_line, shortened

    give_up_output()
    # A long argument that is repeated leaves room for what is said about it.
    words = " ".join(shortened(word, _MOST_SHOWN // 4) for word in message.split())
    with contextlib.suppress(OSError):  # there is nowhere else to say it; the exit status does
        print(f"sr-fuzz: error: {one_line(words, _MOST_SHOWN)}", file=sys.stderr, flush=True)
    return ERROR


def _system_error(error: OSError) -> str:
    said = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}: {said}"
    # What is written to a file is written under its name, so what has no name was printed.
    return f"standard output: {said}" if error.errno in _OUTPUT_ERRORS else said


def _own_failure(error: BaseException) -> str:
    """Keep the traceback of an error that nobody expected, for a report of it, and say where it is."""
    from sr_fuzz.script.wording import reason

    told = f"sr_fuzz itself failed: {reason(error)}"
    try:
        number, path = tempfile.mkstemp(prefix="sr-fuzz-error-", suffix=".txt")
        with open(number, "w", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError as full:
        return f"{told}; its traceback could not be kept: {full.strerror}"
    return f"{told}; its traceback is in {path}"
