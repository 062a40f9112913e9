"""``sr-fuzz emit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines, sglang_own
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.options import OUT, FaultOption, FileArgument, SglangOption
from sr_fuzz.cli.shared import check_folder, mention_origin, violating

if TYPE_CHECKING:
    from sr_fuzz.emit.replacing import Replace
    from sr_fuzz.outcome import Finding, StepRecord


class EmitFormat(StrEnum):
    """What a finding is written out as."""

    PYTEST = "pytest"
    SGLANG = "sglang"
    BUG = "bug"
    ISSUE = "issue"


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
        typer.Option(
            help="pytest: a test for this project's plugin; sglang: one for SGLang's own test suite; "
            "bug: a known bug of the package, with --cause; issue: a text to paste into an issue of SGLang."
        ),
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
    force: Annotated[
        bool, typer.Option("--force", help="Also replace a test that was edited, or that is better.")
    ] = False,
    fault: FaultOption = None,
    sglang: SglangOption = None,
) -> int:
    """Write a finding out as a test or as a known bug; print its path.

    As a pytest test or a known bug a finding file is written out as it is. A script, or an emitted test, is run first
    to see what it breaks. For SGLang's own scripted runtime the script is translated and run again. The exit status is
    2 when it breaks nothing, when SGLang's runtime cannot show what it breaks, and when a test is there already that
    was edited, or is better: [bold]--force[/] replaces it.
    """
    from sr_fuzz.engine.around.differential import compared
    from sr_fuzz.outcome.files import load, named
    from sr_fuzz.shrink.finding_steps import first_seen, reproduce

    if releases is not None and (cause is None or format in (EmitFormat.SGLANG, EmitFormat.ISSUE)):
        raise InputError("--releases: goes with --cause, into a pytest test or a known bug")
    if cause is not None and not cause.strip():
        raise InputError("--cause: expected a text: which lines of SGLang are to blame")
    if format is EmitFormat.BUG and cause is None:
        raise InputError("--format bug: needs --cause: which lines of SGLang are to blame")
    if format is EmitFormat.BUG and force:
        raise InputError("--force: a known bug is written anew in any case, with what was filled in by hand kept")
    case = load(file)
    check_folder(out)
    if format is EmitFormat.SGLANG:
        mention_origin(case, fault, sglang)
        with engines.start(fault, sglang=sglang) as engine:
            typer.echo(_replacing(lambda: sglang_own.write(engine, case, out, fault, cause=cause, force=force).path))
        return 0
    if format is EmitFormat.ISSUE:
        mention_origin(case, fault, sglang)
        with engines.start(fault, sglang=sglang) as engine:
            typer.echo(_replacing(lambda: sglang_own.write_issue(engine, case, out, fault, cause=cause, force=force)))
        return 0
    finding, trace = case.finding, case.trace
    if finding is not None and (fault or sglang):
        option = "--fault" if fault else "--sglang"
        raise InputError(f"{option}: nothing is run, since {named(file)} is a finding, which is written out as it is")
    if finding is None:
        with engines.start(fault, sglang=sglang) as engine:
            engine = compared(engine, case.signature)
            seen = violating(engine, case, "emit")
            finding, outcome = reproduce(first_seen(case.script, seen, engine), engine)
            trace = outcome.trace
    typer.echo(_replacing(lambda: _write(finding, out, format, cause, releases, trace, force)))
    return 0


def _replacing(write: Callable[[], Path]) -> Path:
    from sr_fuzz.emit.replacing import NotReplaced

    try:
        return write()
    except NotReplaced as error:
        raise InputError(f"{error}; --force replaces it") from None


def _write(
    finding: Finding, out: Path, format: EmitFormat, cause: str | None, releases: str | None,
    trace: Sequence[StepRecord], force: bool,
) -> Path:  # fmt: skip
    from sr_fuzz.emit.known_bug import emit_bug
    from sr_fuzz.emit.pytest_repro import emit as emit_test

    if format is EmitFormat.PYTEST or cause is None:
        replace: Replace = "any" if force else "as good"
        return emit_test(finding, out, known_cause=cause, releases=releases, trace=trace, replace=replace)
    try:
        return emit_bug(finding, out, cause=cause, releases=releases, trace=trace)
    except ValueError as error:
        raise InputError(f"--format bug: {error}") from None
