"""Errors of the engines. A finding is never an error: it comes back in the `Outcome`."""

from __future__ import annotations


class EngineError(RuntimeError):
    """The engine could not run a script; the message is one line that says what happened and what to do."""


class UnsupportedVersion(EngineError):
    """The installed SGLang is outside the supported range."""


class RequestRefused(Exception):
    """The tokenizer manager refused a generate request: the scheduler will never see it."""

    def __init__(self, rid: str, status: int | None, text: str) -> None:
        super().__init__(f"request {rid!r} was refused before it reached the scheduler: {text}")
        self.rid = rid
        self.status = status
        """The server's status or error code; None when there was no answer."""
        self.text = text
