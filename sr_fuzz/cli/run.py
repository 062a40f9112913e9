"""``sr-fuzz run``."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.campaign_options import (
    AllNewOption,
    CanaryOption,
    ConfigsOption,
    ExhaustersOption,
    GitHubOption,
    JUnitOption,
    KnownOption,
    LogOption,
    MaxScriptsOption,
    check_all_new,
    check_canary,
    known_bugs,
)
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.listeners import also_told, campaign_status, name_of, reports, telling_of_failure
from sr_fuzz.cli.options import OUT, EngineKind, EngineOption, FaultOption, LimitOption, SglangOption, duration
from sr_fuzz.cli.shared import check_folder, check_target, find_configs
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, ProcessLost

if TYPE_CHECKING:
    from rich.console import Console

    from sr_fuzz.bugs.known import Known
    from sr_fuzz.campaign.events import Listener, Summary
    from sr_fuzz.campaign.triage import Triage
    from sr_fuzz.engine.contract import Engine
    from sr_fuzz.script import EngineConfig

_Time = Annotated[
    float,
    typer.Option(
        "--time", parser=duration, metavar="DURATION",
        help="How long, such as 60s, 5m, 1h, following up what is found included; a finding at the end is completed.",
    ),
]
_Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Draws the same scripts again.")]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="Where repros go.")]
_Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=1, metavar="N",
        help="Processes that search, and one more that follows up what they see. 1: one process does both.",
    ),
]  # fmt: skip
_Example = Annotated[
    bool,
    typer.Option("--example", help="At the end, play a known bug of this SGLang, to show what a finding looks like."),
]
_Differential = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N",
        help="Play each N-th script twice, and each of its requests alone: both must give the same. Not with "
        "--engine persistent or server, where a script finds what others have left.",
    ),
]  # fmt: skip


def run(
    time_s: _Time = "60s",  # type: ignore[assignment]  # parsed like a value from the command line
    config: ConfigsOption = None,
    seed: _Seed = None,
    out: _Out = OUT,
    known: KnownOption = None,
    all_new: AllNewOption = False,
    example: _Example = False,
    max_scripts: MaxScriptsOption = None,
    workers: _Workers = 1,
    exhausters: ExhaustersOption = None,
    engine_kind: EngineOption = EngineKind.LOCAL,
    sglang: SglangOption = None,
    canary: CanaryOption = None,
    fault: FaultOption = None,
    differential: _Differential = None,
    limit: LimitOption = None,
    log: LogOption = None,
    junit: JUnitOption = None,
    github: GitHubOption = None,
) -> int:
    """Look for findings until the time is up.

    A new finding is minimised, confirmed and written to [bold]--out[/] as a pytest test; a known one is counted.
    What keeps a script from being played (the engine broke, a process was killed) is kept under [bold]trouble/[/]
    there, the engine is restarted, and the campaign goes on.

    The exit status is 0 whether or not something was found, 3 when the campaign was blind (it did not see the canary, a
    bug seeded on purpose), 4 when it played no script, or ended before its time because several in a row could not be
    played, and 129, 130 or 143 when SIGHUP, SIGINT or SIGTERM stopped it.
    """
    configs = find_configs(config or ["default"])
    _check_options(engine_kind, known, canary=canary, fault=fault, differential=differential, workers=workers)
    if all_new:
        check_all_new(known, example)
    check_folder(out)
    check_target("--log", log)
    check_target("--junit", junit)
    shares = _shares(configs, engine_kind, asked=config is not None)

    from sr_fuzz.report.terminal import Terminal, make_console

    console = make_console()
    if len(shares) > 1:
        console.print(_shares_line(shares, engine_kind, time_s), soft_wrap=True)
    kept = _KEPT.get(engine_kind)
    others = reports(junit, github)
    with (
        telling_of_failure(name_of(sglang), others),
        engines.start(fault, engine_kind, sglang, keep=kept, limit_s=limit) as engine,
        Terminal(console) as terminal,
        also_told(terminal, log=log, others=others) as listener,
    ):
        asked = _Asked(
            configs, time_s, seed if seed is not None else secrets.randbits(32), out, known, all_new, max_scripts,
            exhausters, canary is not False and not fault, listener,
        )  # fmt: skip
        if workers > 1:  # each process has its own engine; the one here starts for the example alone
            done = _search_with(workers, asked, engines.search_path(sglang), fault, limit)
        else:
            done = _search(engine, asked, shares, server=engine_kind is EngineKind.SERVER, differential=differential)
        if example and not done.interrupted and not done.gave_up:
            _show_example(engine, done, console, sglang)
    if terminal.error is not None and not done.interrupted:
        raise terminal.error
    return campaign_status(done)


class _Asked(NamedTuple):
    """A campaign as the options ask for it."""

    configs: dict[str, EngineConfig]
    time_s: float
    seed: int
    out: Path
    known_folder: Path | None
    all_new: bool
    max_scripts: int | None
    exhausters: bool | None
    canary: bool
    on_event: Listener

    def known(self, sglang_version: str | None) -> Known:
        return known_bugs(self.known_folder, sglang_version, all_new=self.all_new)


def _search(
    engine: Engine, asked: _Asked, shares: list[list[EngineConfig]], *, server: bool, differential: int | None
) -> Summary:
    """Search in this process, on one engine."""
    from sr_fuzz.campaign.loop import run_campaign
    from sr_fuzz.engine.around.differential import DifferentialEngine
    from sr_fuzz.strategies.scripts import scripts

    _start(engine, shares[0][0])
    return run_campaign(
        engine if differential is None else DifferentialEngine(engine, differential),
        scripts=[scripts(share, exhausters=asked.exhausters) for share in shares],
        time_s=asked.time_s,
        seed=asked.seed,
        out=asked.out,
        known=asked.known(engine.sglang_version),
        on_event=asked.on_event,
        max_scripts=asked.max_scripts,
        canary=(lambda: engines.start_canary(engine)) if asked.canary else None,
        triage=_triage(engine, asked.known_folder, server=server, all_new=asked.all_new),
        name_of=_namer(asked.configs),
    )


def _search_with(
    workers: int, asked: _Asked, folders: list[str], fault: list[str] | None, limit: float | None
) -> Summary:
    """Search with several processes on the local engine; a seed draws the same scripts as in one process."""
    from sr_fuzz.campaign.night import NightCampaign, Options
    from sr_fuzz.campaign.order import RoundRobin
    from sr_fuzz.campaign.store import Unstored
    from sr_fuzz.campaign.workers.messages import EngineSetup

    options = Options(
        configs=asked.configs,
        engine=EngineSetup(tuple(folders), tuple(fault or ()), limit),
        seed=asked.seed,
        time_s=asked.time_s,
        workers=workers,
        known=asked.known(engines.version(folders)),
        known_folder=asked.known_folder,
        all_new=asked.all_new,
        canary=asked.canary,
        exhausters=asked.exhausters,
        max_scripts=asked.max_scripts,
    )
    order = RoundRobin(list(asked.configs), size=len(asked.configs))
    return NightCampaign(options, Unstored(asked.out), order, on_event=asked.on_event).run()


def _start(engine: Engine, config: EngineConfig) -> None:
    """Start the engine, once more if one of its processes was killed meanwhile; later the campaign sees to that."""
    with contextlib.suppress(ConfigNotBooted):  # in the summary, unless no other configuration boots either
        try:
            engine.start(config)
        except ProcessLost as error:
            typer.echo(f"sr-fuzz: note: {str(error).splitlines()[0]}; it is started again", err=True)
            engine.start(config)


def _show_example(engine: Engine, done: Summary, console: Console, sglang: str | None) -> None:
    from sr_fuzz.campaign.example import play_example
    from sr_fuzz.report.example import print_example
    from sr_fuzz.report.words import first_line

    try:
        played = play_example(engine, done)
    except EngineError as error:
        console.print(f"The example could not be played: {first_line(str(error))}", markup=False)
        return
    if played is None:
        console.print(f"No known bug of SGLang {engine.sglang_version} that could be shown as an example.")
    else:
        print_example(console, played, sglang)


def _check_options(
    kind: EngineKind,
    known: Path | None,
    *,
    canary: bool | None,
    fault: list[str] | None,
    differential: int | None,
    workers: int,
) -> None:
    """Refuse options that exclude each other, and an unreadable folder of known findings, before an engine starts."""
    known_bugs(known)
    check_canary(canary, fault)
    if differential is not None and kind is not EngineKind.LOCAL:
        raise InputError(f"--differential: needs a fresh process for each script, not --engine {kind.value}")
    if workers > 1 and (kind is not EngineKind.LOCAL or differential is not None):
        other = "--differential" if differential is not None else f"--engine {kind.value}"
        raise InputError(f"--workers: several search on the plain local engine only, so not with {other}")


def _namer(configs: dict[str, EngineConfig]) -> Callable[[EngineConfig], str]:
    from sr_fuzz.script.text import config_text

    names = {configuration: name for name, configuration in configs.items()}
    return lambda configuration: names.get(configuration, config_text(configuration))


# Schedulers that a live engine keeps at the same time. One takes 0.7 GB, a server with its three processes 2 GB.
# Starting another one for each script would take longer than all scripts.
_KEPT = {EngineKind.PERSISTENT: 6, EngineKind.SERVER: 3}


def _shares(configs: dict[str, EngineConfig], kind: EngineKind, *, asked: bool) -> list[list[EngineConfig]]:
    """Group the configurations that run together.

    A group holds as many as the engine keeps. Of the configurations that the user asked for, all are played: each group
    has a share of the time. Otherwise only the first group is played.
    """
    every = list(configs.values())
    most = _KEPT.get(kind, len(every))
    if not asked:
        return [every[:most]]
    count = -(-len(every) // most)
    return [every[len(every) * n // count : len(every) * (n + 1) // count] for n in range(count)]


def _shares_line(shares: list[list[EngineConfig]], kind: EngineKind, time_s: float) -> str:
    sizes = " + ".join(str(len(share)) for share in shares)
    return (
        f"--engine {kind.value} keeps at most {_KEPT[kind]} schedulers: the configurations take turns, {sizes} of them "
        f"for {time_s / len(shares):.0f} s each"
    )


def _triage(engine: Engine, known: Path | None, *, server: bool, all_new: bool) -> Triage:
    from sr_fuzz.bugs.known import all_fixes
    from sr_fuzz.campaign.triage import Triage

    return Triage(engine, all_fixes(known, engine.sglang_version, server=server), all_new=all_new)
