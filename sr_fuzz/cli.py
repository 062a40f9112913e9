"""The command line, ``sr-fuzz``.

Whatever is wrong with the input is said in exactly one line on standard error, with exit status 2. SGLang, the engine
and the strategies are imported only by the commands that need them, so that help and mistakes are instant.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sr_fuzz.confirm import PlayTest, SglangTest
    from sr_fuzz.engine.sglang_own import SglangRun
    from sr_fuzz.outcome import Outcome
    from sr_fuzz.replay import Case, Engine
    from sr_fuzz.script import EngineConfig

OUT = Path("findings")
KNOWN = Path("tests/regressions")

INTERRUPTED = 130
"""What a shell reports for a program ended by Ctrl-C: 128 + SIGINT."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="Fuzz SGLang's scheduler with random scripts; shrink and write out what breaks.",
)


class InputError(Exception):
    """Something the user gave makes no sense. The message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from sr_fuzz.campaign.known import KnownError
    from sr_fuzz.errors import EngineError
    from sr_fuzz.script import ScriptError
    from sr_fuzz.translate import NotExpressible

    try:
        status = app(args=None if arguments is None else list(arguments), prog_name="sr-fuzz", standalone_mode=False)
    except (InputError, ScriptError, KnownError) as error:
        return _fail(str(error))
    except NotExpressible as error:
        return _fail(f"SGLang's own scripted runtime cannot show it: {error}")
    except EngineError as error:
        return _fail(_engine_trouble(str(error)))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        # Usage errors of Typer, whose base class has lived in two packages; all of them can say what is wrong.
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message())
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    print(f"sr-fuzz: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _engine_trouble(message: str) -> str:
    """The first line says what happened; the last one of a log behind it, if any, mostly says why."""
    first, *log = [line.strip() for line in message.splitlines() if line.strip()] or ["the engine failed"]
    reason = log[-1] if log else ""
    # A traceback ends in the error that the first line may have given already.
    told = reason.partition(": ")[2] or reason
    return f"{first.rstrip('.')}: {reason}" if reason and told not in first else first


# -- options ---------------------------------------------------------------------------------------------------


def duration(value: str) -> float:
    """Seconds in ``90``, ``60s``, ``5m``, ``1h`` or ``1h30m``. Raises `typer.BadParameter`."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", value.strip())
    hours, minutes, seconds = match.groups() if match else (None, None, None)
    total = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds or 0)
    if total <= 0:
        raise typer.BadParameter(f"{value!r} is no duration; expected more than nothing, such as 60s, 5m or 1h30m")
    return total


def _fault_path(value: str) -> str:
    if not re.fullmatch(r"[\w.]+:[\w.]+", value):
        raise typer.BadParameter(f"{value!r} is no fault; expected an import path, package.module:function")
    return value


FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A script (JSON), a finding (JSON), or an emitted test (.py).")
]
FaultOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", parser=_fault_path, metavar="MODULE:FUNCTION",
        help="Seed a fault: a context manager that is active while the scheduler runs. Repeatable.",
    ),
]  # fmt: skip


class EngineKind(StrEnum):
    """What plays the scripts."""

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

SglangOption = Annotated[
    str | None,
    typer.Option(
        "--sglang", metavar="VERSION",
        help="Another release than the installed one, such as 0.5.20; fetched once into a cache. The environment stays "
        "as it is.",
    ),
]  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from sr_fuzz import __version__

        typer.echo(f"sr-fuzz {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# -- run -------------------------------------------------------------------------------------------------------


@app.command()
def run(
    time_s: Annotated[
        float, typer.Option("--time", parser=duration, metavar="DURATION", help="How long, such as 60s, 5m, 1h.")
    ] = "60s",  # type: ignore[assignment]  # parsed like a value from the command line
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A configuration or a set of them (see `sr-fuzz configs`). Repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Draws the same scripts again.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where repros go.")] = OUT,
    known: Annotated[
        Path, typer.Option(metavar="DIR", help="Emitted tests of known findings, which are only counted.")
    ] = KNOWN,
    max_scripts: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many scripts.")] = None,
    exhausters: Annotated[
        bool | None,
        typer.Option(
            "--exhausters/--no-exhausters",
            help="Scripts that hold memory, rows or locks: all or none of them. If not given, one in eight.",
            show_default=False,
        ),
    ] = None,
    engine_kind: EngineOption = EngineKind.LOCAL,
    sglang: SglangOption = None,
    fault: FaultOption = None,
) -> int:
    """Look for findings until the time is up.

    A new finding is minimised, confirmed and written to [bold]--out[/] as a pytest test; a known one is counted.
    The exit status is 0 whether or not something was found.
    """
    configs = _fitting(_find_configs(config or ["default"]), engine_kind, asked=config is not None)
    known_findings = _known(known)
    _make_folder(out)

    from sr_fuzz.campaign.loop import run_campaign
    from sr_fuzz.report.terminal import Terminal, make_console
    from sr_fuzz.script_text import config_text
    from strategies.scripts import scripts

    names = {configuration: name for name, configuration in configs.items()}
    console = make_console()
    with _engine(fault, engine_kind, len(configs), sglang) as engine, Terminal(console) as terminal:
        run_campaign(
            engine,
            scripts=scripts(list(configs.values()), exhausters=exhausters),
            time_s=time_s,
            seed=seed if seed is not None else secrets.randbits(32),
            out=out,
            known=known_findings,
            on_event=terminal,
            max_scripts=max_scripts,
            faults=fault or (),
            name_of=lambda configuration: names.get(configuration, config_text(configuration)),
        )
    return 0


def _find_configs(names: Sequence[str]) -> dict[str, EngineConfig]:
    from strategies.configs import find_configs

    try:
        return find_configs(names)
    except ValueError as error:
        raise InputError(f"--config: {error}") from None


# Schedulers that a live engine keeps at once: one takes 0.7 GB, a server with its three processes 2 GB, and to start
# another one for the next script would take longer than all scripts.
_KEPT = {EngineKind.PERSISTENT: 6, EngineKind.SERVER: 3}


def _fitting(configs: dict[str, EngineConfig], kind: EngineKind, *, asked: bool) -> dict[str, EngineConfig]:
    """Those that fit the engine: all that were asked for, or else as many as it keeps. Raises `InputError`."""
    most = _KEPT.get(kind, len(configs))
    if len(configs) > most and asked:
        raise InputError(
            f"--engine {kind.value} keeps a scheduler for each configuration, at most {most}; --config names "
            f"{len(configs)}"
        )
    return dict(list(configs.items())[:most])


def _known(folder: Path) -> dict[str, tuple[Path, str]]:
    from sr_fuzz.campaign.known import known_signatures

    # The default folder may well be missing: there is nothing known then.
    if folder != KNOWN and not folder.is_dir():
        raise InputError(f"--known: {folder} is not a folder")
    return known_signatures(folder)


def _make_folder(folder: Path) -> None:
    """Now, rather than when the first finding is to be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {folder} cannot be made a folder: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--out: {folder} is not writable")


@contextmanager
def _engine(
    faults: Sequence[str] | None,
    kind: EngineKind = EngineKind.LOCAL,
    configs: int = 1,
    sglang: str | None = None,
) -> Iterator[Engine]:
    """``configs``: how many configurations will take turns. ``sglang``: the release, None for the installed one."""
    from sr_fuzz.releases import release_folder

    release = [str(release_folder(sglang))] if sglang is not None else []
    from sr_fuzz.engine_options import choose, make_engine

    if sys.stderr.isatty():
        took = "half a minute" if kind is EngineKind.SERVER else "about ten seconds"
        print(f"starting the engine: importing SGLang takes {took} ...", file=sys.stderr)
    # Faults may lie in the project at hand, as with `python -m`.
    engine = make_engine(choose(kind.value), faults=tuple(faults or ()), sys_path=[*release, os.getcwd()])
    if kind is not EngineKind.LOCAL:
        engine.max_schedulers = max(configs, engine.max_schedulers)
    with engine:
        yield engine


# -- replay, minimise, emit ------------------------------------------------------------------------------------


@app.command()
def replay(
    file: FileArgument,
    engine_kind: EngineOption = EngineKind.LOCAL,
    sglang: SglangOption = None,
    fault: FaultOption = None,
) -> int:
    """Play a script again, and show what happens.

    The exit status is 0 when there is no violation, 1 when there is one (its signature may differ from that in FILE,
    since another SGLang version moves code), and 2 when it cannot be run.
    """
    from sr_fuzz.replay import load
    from sr_fuzz.replay import replay as play

    case = load(file)
    _mention_faults(case, fault)
    with _engine(fault, engine_kind, sglang=sglang) as engine:
        outcome, verdict = play(engine, case)
    typer.echo(outcome.report())
    typer.echo(verdict)
    return 0 if outcome.ok else 1


@app.command()
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
    from sr_fuzz.emit import TRACE_STEPS, to_source
    from sr_fuzz.investigate import first_seen, reproduce, shrink
    from sr_fuzz.minimise import MAX_RUNS
    from sr_fuzz.replay import load, save_finding

    case = load(file)
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out: {out.absolute().parent} is not a folder")
    _mention_faults(case, fault)
    with _engine(fault, engine_kind, sglang=sglang) as engine:
        seen = _violating(engine, case, "minimise")
        first = first_seen(case.script, seen, fault or ())
        finding, outcome = reproduce(shrink(first, engine.run, max_runs=max_runs or MAX_RUNS), engine.run)
    if out is not None:
        save_finding(finding, out, outcome.trace[-TRACE_STEPS:])
    typer.echo(
        f"{finding.signature}: from {finding.original_actions} to {len(finding.script.actions)} actions in "
        f"{finding.reruns} runs; shown by {finding.reliability}",
        err=True,
    )
    typer.echo(to_source(finding.script))
    return 0


class EmitFormat(StrEnum):
    """What an emitted test runs on."""

    PYTEST = "pytest"
    SGLANG = "sglang"


@app.command()
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
    fault: FaultOption = None,
) -> int:
    """Write a finding out as a test; print its path.

    As a pytest test a finding file is written out as it is. A script, or an emitted test, is run first to see what it
    breaks. For SGLang's own scripted runtime the script is translated and run again. The exit status is 2 when it
    breaks nothing, and when SGLang's runtime cannot show what it breaks.
    """
    from sr_fuzz.emit import emit as write
    from sr_fuzz.investigate import first_seen, reproduce
    from sr_fuzz.replay import load

    case = load(file)
    _make_folder(out)
    if format is EmitFormat.SGLANG:
        _mention_faults(case, fault)
        with _engine(fault) as engine:
            typer.echo(_sglang_test(engine, case, out, fault, cause=cause).path)
        return 0
    if case.finding is not None:
        typer.echo(write(case.finding, out, known_cause=cause, trace=case.trace))
        return 0
    with _engine(fault) as engine:
        seen = _violating(engine, case, "emit")
        finding, outcome = reproduce(first_seen(case.script, seen, fault or ()), engine.run)
    typer.echo(write(finding, out, known_cause=cause, trace=outcome.trace))
    return 0


def _sglang_test(
    engine: Engine,
    case: Case,
    out: Path,
    fault: Sequence[str] | None,
    *,
    cause: str | None = None,
    purpose: str = "emit",
) -> SglangTest:
    """A test for SGLang's own scripted runtime, from a file of any kind."""
    from sr_fuzz.confirm import write_sglang_test
    from sr_fuzz.investigate import first_seen

    finding = case.finding or first_seen(case.script, _violating(engine, case, purpose), fault or ()).finding
    return write_sglang_test(finding, out, engine.run, _complaints(engine), known_cause=cause)


def _complaints(engine: Engine) -> PlayTest:
    from sr_fuzz.emit_sglang import SCRIPT_FUNCTION
    from sr_fuzz.engine.sglang_own import complaint_of

    return lambda path, config: complaint_of(engine, path, SCRIPT_FUNCTION, config)  # type: ignore[arg-type]


# -- confirm ---------------------------------------------------------------------------------------------------


class Elsewhere(StrEnum):
    """Where a finding of the local engine is tried again."""

    SERVER = "server"
    SGLANG = "sglang"


@app.command()
def confirm(
    file: FileArgument,
    on: Annotated[
        Elsewhere,
        typer.Option(help="server: our hook in SGLang's HTTP server; sglang: SGLang's own scripted runtime."),
    ] = Elsewhere.SERVER,
    n: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How often.")] = 1,
    fault: FaultOption = None,
) -> int:
    """Try a finding of the local engine on a full server, which takes a minute.

    The exit status is 0 when it does not show there, 1 when it does (in one of N runs), and 2 when it cannot be run.
    """
    from sr_fuzz.replay import load

    case = load(file)
    _mention_faults(case, fault)
    shown = _confirm_on_server(case, n, fault) if on is Elsewhere.SERVER else _confirm_on_sglang(case, n, fault)
    typer.echo(f"{'reproduced' if shown else 'not reproduced'}: in {shown} of {n} runs on {_PLACES[on]}")
    return 1 if shown else 0


_PLACES = {Elsewhere.SERVER: "the server engine", Elsewhere.SGLANG: "SGLang's own scripted runtime"}


def _confirm_on_server(case: Case, n: int, fault: Sequence[str] | None) -> int:
    from sr_fuzz.replay import replay as play

    shown = 0
    with _engine(fault, EngineKind.SERVER) as engine:
        for _ in range(n):
            outcome, verdict = play(engine, case)
            if not outcome.ok:
                shown += 1
                typer.echo(outcome.report())
            typer.echo(f"on the server engine: {verdict}")
    return shown


def _confirm_on_sglang(case: Case, n: int, fault: Sequence[str] | None) -> int:
    from sr_fuzz.errors import EngineError
    from sr_fuzz.script_text import text

    shown = 0
    with tempfile.TemporaryDirectory(prefix="sr-fuzz-") as folder:
        with _engine(fault) as engine:
            test = _sglang_test(engine, case, Path(folder), fault, purpose="confirm")
        typer.echo(f"script in the words of SGLang's API: {text(test.finding.script)}")
        typer.echo(f"its test fails on the local engine: {test.complaint}")
        for _ in range(n):
            run = _run_on_sglang(test.path, fault or ())
            if not run.passed and not run.failed:
                raise EngineError(f"SGLang's own scripted runtime {run.summary}")
            typer.echo(f"on SGLang's own scripted runtime: {run.summary}")
            shown += run.failed
    return shown


def _run_on_sglang(path: Path, faults: Sequence[str]) -> SglangRun:
    from sr_fuzz.engine.sglang_own import run_file

    return run_file(path, faults=faults, sys_path=[os.getcwd()])


# -- what several commands need --------------------------------------------------------------------------------


def _violating(engine: Engine, case: Case, purpose: str) -> Outcome:
    outcome = engine.run(case.script)
    if outcome.violation is None:
        raise InputError(f"{case.path}: {outcome.report()}; nothing to {purpose}")
    return outcome


def _mention_faults(case: Case, given: Sequence[str] | None) -> None:
    """A file does not switch faults on by itself: that would run code that it names."""
    missing = set(case.finding.faults if case.finding else ()) - set(given or ())
    if missing:
        options = " ".join(f"--fault {path}" for path in sorted(missing))
        typer.echo(f"sr-fuzz: note: {case.path} was found with {options}", err=True)


# -- doctor, configs -------------------------------------------------------------------------------------------


@app.command()
def doctor() -> int:
    """Say what is installed, what will work here, and how to get what is missing.

    The exit status is 0 when fuzzing on the CPU will work, else 2.
    """
    from rich.markup import escape
    from rich.table import Table

    from sr_fuzz.doctor import checks
    from sr_fuzz.report.terminal import make_console

    results = checks()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "needed"):
        table.add_column(column, overflow="fold")
    for check in results:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]" if check.required else "[yellow]optional[/]"
        table.add_row(mark, check.name, escape(check.found), escape(check.needed))
    console = make_console()
    console.print(table)
    for check in results:
        if not check.ok and check.how:
            console.print(f"{check.name}: {check.how}", markup=False, soft_wrap=True)
    works = all(check.ok for check in results if check.required)
    console.print("Fuzzing on the CPU will work here." if works else "Fuzzing on the CPU will not work here yet.")
    return 0 if works else 2


@app.command()
def configs() -> int:
    """List the engine configurations and their sets."""
    from sr_fuzz.script_text import config_text
    from strategies.configs import CONFIG_SETS

    for name, members in CONFIG_SETS.items():
        typer.echo(f"{name}: {len(members)} configurations")
        for member, configuration in members.items():
            typer.echo(f"  {member:<22} {config_text(configuration)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
