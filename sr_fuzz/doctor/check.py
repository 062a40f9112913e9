"""What a check of `doctor` and `doctor_live` is, and what both look at."""

from __future__ import annotations

from importlib import metadata
from typing import NamedTuple

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. ``how`` says how to get it, empty where nothing need be done."""

    name: str
    ok: bool
    found: str
    needed: str
    how: str = ""
    required: bool = True
    """False: the main job works without it; ``needed`` says what does not."""


class Torch(NamedTuple):
    """What importing torch showed: a version, or the error in one line."""

    version: str
    error: str
    gpus: tuple[str, ...]
    """Names of the CUDA devices, empty where CUDA does not work."""


def installed(package: str) -> str | None:
    """The installed version of a distribution, None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
