"""Error reporting: an error is exactly one line on standard error, with exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from sr_fuzz.cli.signals import stopped_status, terminable
from sr_fuzz.cli.statuses import ERROR, INTERRUPTED


class InputError(Exception):
    """The user's input is invalid. The message is one line."""


def exit_status(command: Callable[[], object]) -> int:
    """Run ``command`` and return its exit status. An error is printed, and its exit status is returned."""
    from sr_fuzz.bugs.known import KnownError
    from sr_fuzz.emit.public_api import NotExpressible
    from sr_fuzz.script import ScriptError
    from sr_fuzz.script.errors import EngineError

    try:
        with terminable():
            status = command()
    except (InputError, ScriptError, KnownError) as error:
        return _fail(str(error))
    except NotExpressible as error:
        return _fail(f"SGLang's own scripted runtime cannot show it: {error}")
    except EngineError as error:
        return _fail(_engine_trouble(str(error)))
    except (KeyboardInterrupt, typer.Abort):
        return stopped_status()
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        # Usage errors of Typer have a base class that has been in two packages; all of them have ``format_message``.
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message())
    if status == INTERRUPTED:
        return stopped_status()  # Typer's own answer to a KeyboardInterrupt, whichever signal raised it
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    print(f"sr-fuzz: error: {' '.join(message.split())}", file=sys.stderr)
    return ERROR


def _engine_trouble(message: str) -> str:
    """Join the first line, which says what happened, and the last line of an appended log, which usually says why."""
    first, *log = [line.strip() for line in message.splitlines() if line.strip()] or ["the engine failed"]
    reason = log[-1] if log else ""
    # A traceback ends with the error that the first line may already contain.
    told = reason.partition(": ")[2] or reason
    return f"{first.rstrip('.')}: {reason}" if reason and told not in first else first
