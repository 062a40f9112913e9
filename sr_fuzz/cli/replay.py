"""``sr-fuzz replay`` and ``sr-fuzz minimise``: commands on a script in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.options import EngineKind, EngineOption, FaultOption, FileArgument, LimitOption, SglangOption
from sr_fuzz.cli.shared import check_target, mention_origin, violating

if TYPE_CHECKING:
    from sr_fuzz.outcome import Outcome


def replay(
    file: FileArgument,
    engine_kind: EngineOption = EngineKind.LOCAL,
    sglang: SglangOption = None,
    fault: FaultOption = None,
    limit: LimitOption = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print every step, also where nothing broke.")] = False,
) -> int:
    """Play a script again, and show what happens.

    The exit status is 0 when there is no violation, 1 when there is one (its signature may differ from that in FILE,
    since another SGLang version moves code), and 2 when it cannot be run.
    """
    from sr_fuzz.engine.around.differential import compared
    from sr_fuzz.outcome.files import load
    from sr_fuzz.outcome.outcome import REPORT_STEPS
    from sr_fuzz.shrink.replay import replay as play

    case = load(file)
    mention_origin(case, fault, sglang)
    with engines.start(fault, engine_kind, sglang=sglang, limit_s=limit) as engine:
        outcome, verdict = play(compared(engine, case.signature), case)
    if trace:
        typer.echo(outcome.whole_trace)
    typer.echo(outcome.report(last=0 if trace else REPORT_STEPS))
    typer.echo(verdict)
    if outcome.ok and case.signature is not None:
        _mention_what_was_not_looked_for(case.signature.partition(":")[0], outcome)
    return 0 if outcome.ok else 1


def _mention_what_was_not_looked_for(invariant: str, outcome: Outcome) -> None:
    """Print a note where the invariant of the file's violation was not checked in this run."""
    why = outcome.no_subject.get(invariant) or outcome.not_checked.get(invariant)
    if why is not None:
        hint = "; try --engine server" if invariant == "http_answers" else ""
        typer.echo(f"sr-fuzz: note: {invariant} was not checked in this run: {why}{hint}", err=True)


def minimise(
    file: FileArgument,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the finding, as JSON.")] = None,
    max_runs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Runs to spend; 60 if not given.")] = None,
    engine_kind: EngineOption = EngineKind.LOCAL,
    sglang: SglangOption = None,
    fault: FaultOption = None,
) -> int:
    """Shrink a script that breaks something; print the shortest one that breaks the same.

    The result goes to standard output as Python source, and with [bold]--out[/] into a finding file, which
    `sr-fuzz emit` makes a test of. The exit status is 2 when there is nothing to minimise.
    """
    from sr_fuzz.emit.pytest_repro import TRACE_STEPS, to_source
    from sr_fuzz.engine.around.differential import compared
    from sr_fuzz.outcome.files import load, save_finding
    from sr_fuzz.shrink.finding_steps import first_seen, reproduce, shrink
    from sr_fuzz.shrink.minimise import MAX_RUNS

    case = load(file)
    check_target("--out", out)
    mention_origin(case, fault, sglang)
    with engines.start(fault, engine_kind, sglang=sglang) as engine:
        engine = compared(engine, case.signature)
        seen = violating(engine, case, "minimise")
        first = first_seen(case.script, seen, engine)
        finding, outcome = reproduce(shrink(first, engine.run, max_runs=max_runs or MAX_RUNS), engine)
    if out is not None:
        save_finding(finding, out, outcome.trace[-TRACE_STEPS:])
    typer.echo(
        f"{finding.signature}: from {finding.original_actions} to {len(finding.script.actions)} actions in "
        f"{finding.reruns} runs; shown by {finding.reliability}",
        err=True,
    )
    typer.echo(to_source(finding.script))
    return 0
