"""Errors that several rooms share: invalid scripts, and engines that cannot run.

A finding is not an error: it is returned in the outcome.
"""

from __future__ import annotations


class ScriptError(ValueError):
    """A script cannot be read or is invalid. The message is one line and names the field."""


class EngineError(RuntimeError):
    """The engine could not run a script; the message is one line that says what happened and what to do."""


class ConfigNotBooted(EngineError):
    """This SGLang does not boot a scheduler with that configuration; other configurations may work."""


class NotPlayed(EngineError):
    """The engine is up and says that it could not play this script: an error of ours, of a fault or of a fix."""


class ProcessLost(EngineError):
    """A process of the engine was ended from outside, by a kill or for lack of memory.

    The engine starts another one at its next use, and the script can be played again.
    """


class UnsupportedVersion(EngineError):
    """The installed SGLang is outside the supported range."""


class RequestRefused(Exception):
    """The tokenizer manager refused a generate request, so the scheduler will never see it."""

    def __init__(self, rid: str, status: int | None, text: str) -> None:
        super().__init__(f"request {rid!r} was refused before it reached the scheduler: {text}")
        self.rid = rid
        self.status = status
        """The server's status or error code; None when there was no response."""
        self.text = text
