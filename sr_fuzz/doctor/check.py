"""The result of one check of ``sr-fuzz doctor``, and helpers that several checks use."""

from __future__ import annotations

from importlib import metadata
from typing import NamedTuple

import msgspec


class Check(msgspec.Struct, frozen=True):
    """The result of one check. ``how`` says how to get what is missing; it is empty where nothing has to be done."""

    name: str
    ok: bool
    found: str
    needed: str
    how: str = ""
    required: bool = True
    """False: fuzzing on the local engine works without it; ``needed`` says what does not work."""


class Torch(NamedTuple):
    """The result of importing torch: a version, or the error in one line."""

    version: str
    error: str
    gpus: tuple[str, ...]
    """Names of the CUDA devices; empty where CUDA does not work."""


def installed(package: str) -> str | None:
    """Return the installed version of a distribution; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
