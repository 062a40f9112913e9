"""``sr-fuzz confirm``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines, sglang_own
from sr_fuzz.cli.options import EngineKind, FaultOption, FileArgument, SglangOption
from sr_fuzz.cli.shared import mention_origin

if TYPE_CHECKING:
    from sr_fuzz.outcome.files import Case


class Elsewhere(StrEnum):
    """Where a finding of the local engine is tried again."""

    SERVER = "server"
    SGLANG = "sglang"


def confirm(
    file: FileArgument,
    on: Annotated[
        Elsewhere,
        typer.Option(help="server: our hook in SGLang's HTTP server; sglang: SGLang's own scripted runtime."),
    ] = Elsewhere.SERVER,
    n: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How often.")] = 1,
    sglang: SglangOption = None,
    fault: FaultOption = None,
) -> int:
    """Try a finding of the local engine on a full server, which takes a minute.

    The exit status is 0 when it does not show there, 1 when it does (in one of N runs), and 2 when it cannot be run.
    """
    from sr_fuzz.outcome.files import load

    case = load(file)
    mention_origin(case, fault, sglang)
    try_again = _confirm_on_server if on is Elsewhere.SERVER else _confirm_on_sglang
    shown = try_again(case, n, fault, sglang)
    typer.echo(f"{'reproduced' if shown else 'not reproduced'}: in {shown} of {n} runs on {_PLACES[on]}")
    return 1 if shown else 0


_PLACES = {Elsewhere.SERVER: "the server engine", Elsewhere.SGLANG: "SGLang's own scripted runtime"}


def _confirm_on_server(case: Case, n: int, fault: Sequence[str] | None, sglang: str | None) -> int:
    from sr_fuzz.shrink.replay import replay as play

    shown = 0
    with engines.start(fault, EngineKind.SERVER, sglang) as engine:
        for _ in range(n):
            outcome, verdict = play(engine.fresh(), case)
            if not outcome.ok:
                shown += 1
                typer.echo(outcome.report())
            typer.echo(f"on the server engine: {verdict}")
    return shown


def _confirm_on_sglang(case: Case, n: int, fault: Sequence[str] | None, sglang: str | None) -> int:
    from sr_fuzz.lifetime.owned_folders import owned_folder
    from sr_fuzz.script.errors import EngineError
    from sr_fuzz.script.text import text

    shown = 0
    with owned_folder() as folder:
        with engines.start(fault, sglang=sglang) as engine:
            test = sglang_own.write(engine, case, folder, fault, purpose="confirm")
        typer.echo(f"script in the words of SGLang's API: {text(test.finding.script)}")
        typer.echo(f"its test fails on the local engine: {test.complaint}")
        for _ in range(n):
            run = sglang_own.run(test.path, fault or (), sglang)
            if not run.passed and not run.failed:
                raise EngineError(f"SGLang's own scripted runtime {run.summary}")
            typer.echo(f"on SGLang's own scripted runtime: {run.summary}")
            shown += run.failed
    return shown
