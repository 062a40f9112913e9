"""Errors of the engines. A finding is never an error: it comes back in the `Outcome`."""

from __future__ import annotations


class EngineError(RuntimeError):
    """The engine could not run a script; the message is one line that says what happened and what to do."""


class UnsupportedVersion(EngineError):
    """The installed SGLang is outside the supported range."""
