"""``sr-fuzz emit``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sr_fuzz.cli import engines, sglang_own
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.options import OUT, FaultOption, FileArgument
from sr_fuzz.cli.shared import make_folder, mention_faults, violating


class EmitFormat(StrEnum):
    """What an emitted test runs on."""

    PYTEST = "pytest"
    SGLANG = "sglang"


def _releases(value: str) -> str:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return str(SpecifierSet(value))
    except InvalidSpecifier:
        raise typer.BadParameter(f"{value!r} is no version specifier; expected one such as '<0.5.22'") from None


def emit(
    file: FileArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the test goes.")] = OUT,
    format: Annotated[
        EmitFormat,
        typer.Option(help="pytest: for this project's plugin; sglang: for SGLang's own test suite."),
    ] = EmitFormat.PYTEST,
    cause: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The known cause: marks the test as an expected failure with it.")
    ] = None,
    releases: Annotated[
        str | None,
        typer.Option(
            parser=_releases, metavar="SPECIFIER",
            help="With --cause: the releases of SGLang that have the bug, such as '<0.5.22'; if not given, all.",
        ),
    ] = None,
    fault: FaultOption = None,
) -> int:
    """Write a finding out as a test; print its path.

    As a pytest test a finding file is written out as it is. A script, or an emitted test, is run first to see what it
    breaks. For SGLang's own scripted runtime the script is translated and run again. The exit status is 2 when it
    breaks nothing, and when SGLang's runtime cannot show what it breaks.
    """
    from sr_fuzz.emit.pytest_repro import emit as write
    from sr_fuzz.engine.around.differential import compared
    from sr_fuzz.outcome.files import load
    from sr_fuzz.shrink.finding_steps import first_seen, reproduce

    if releases is not None and (cause is None or format is EmitFormat.SGLANG):
        raise InputError("--releases: goes with --cause, into a pytest test")
    case = load(file)
    make_folder(out)
    if format is EmitFormat.SGLANG:
        mention_faults(case, fault)
        with engines.start(fault) as engine:
            typer.echo(sglang_own.write(engine, case, out, fault, cause=cause).path)
        return 0
    if case.finding is not None:
        typer.echo(write(case.finding, out, known_cause=cause, releases=releases, trace=case.trace))
        return 0
    with engines.start(fault) as engine:
        engine = compared(engine, case.signature)
        seen = violating(engine, case, "emit")
        finding, outcome = reproduce(first_seen(case.script, seen, fault or ()), engine)
    typer.echo(write(finding, out, known_cause=cause, releases=releases, trace=outcome.trace))
    return 0
