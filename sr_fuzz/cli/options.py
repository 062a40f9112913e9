"""Options and arguments that several commands take."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

OUT = Path("findings")


def duration(value: str) -> float:
    """Return the seconds in ``90``, ``60s``, ``5m``, ``1h`` or ``1h30m``. Raises `typer.BadParameter`."""
    match = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s?)?", value.strip())
    hours, minutes, seconds = match.groups() if match else (None, None, None)
    total = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds or 0)
    if total <= 0:
        raise typer.BadParameter(f"{value!r} is no duration; expected more than nothing, such as 60s, 5m or 1h30m")
    return total


def fault_path(value: str) -> str:
    """Check a path ``package.module:function``. Raises `typer.BadParameter`."""
    if not re.fullmatch(r"[\w.]+:[\w.]+", value):
        raise typer.BadParameter(f"{value!r} is no fault; expected an import path, package.module:function")
    return value


FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A script (JSON), a finding (JSON), or an emitted test (.py).")
]
FaultOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", parser=fault_path, metavar="MODULE:FUNCTION",
        help="Seed a fault: a context manager that is active while the scheduler runs. Repeatable.",
    ),
]  # fmt: skip


class EngineKind(StrEnum):
    """The kind of engine that plays the scripts."""

    LOCAL = "local"
    PERSISTENT = "persistent"
    SERVER = "server"


EngineOption = Annotated[
    EngineKind,
    typer.Option(
        "--engine",
        help="local: a fresh process for each script; persistent: many scripts in one process; server: SGLang's "
        "whole HTTP server.",
    ),
]

LimitOption = Annotated[
    float | None,
    typer.Option(
        "--limit", parser=duration, metavar="TIME",
        help="How long a step may take before it counts as a hang, such as 30s; 20s if not given, 2m on a server. "
        "As much again for each 10,000 tokens of a script's prompts; waiting for a processor does not count.",
    ),
]  # fmt: skip

SglangOption = Annotated[
    str | None,
    typer.Option(
        "--sglang", metavar="SOURCE",
        help="Another SGLang than the installed one: a version such as 0.5.20, fetched once into a cache; a source "
        "tree; or a wheel file. The environment stays as it is.",
    ),
]  # fmt: skip
