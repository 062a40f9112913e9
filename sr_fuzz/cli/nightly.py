"""``sr-fuzz nightly``."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import time
from collections.abc import Iterator, Sequence
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
from sr_fuzz.cli.listeners import Report, also_told, campaign_status, name_of, reports, telling_of_failure
from sr_fuzz.cli.options import FaultOption, LimitOption, duration
from sr_fuzz.cli.shared import check_folder, check_target, find_configs
from sr_fuzz.cli.statuses import OK, TROUBLE
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import first_and_last

if TYPE_CHECKING:
    from sr_fuzz.campaign.events import Summary
    from sr_fuzz.campaign.night import Options
    from sr_fuzz.campaign.store import Store
    from sr_fuzz.campaign.workers.messages import HistorySetup

STORE = Path("nightly")
"""Where a night is kept unless another folder is named."""

_DEFAULT_S = 8 * 3600.0


def clock_time(text: str) -> datetime.time:
    """Read a time of the day, ``07:00``."""
    try:
        return datetime.datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a time of the day, such as 07:00") from None


def seconds_until(end: datetime.time, now: datetime.datetime) -> float:
    """Return how long it is from ``now`` to the next ``end``, in seconds; both are local."""
    then = datetime.datetime.combine(now.date(), end)
    return (then - now if then > now else then + datetime.timedelta(days=1) - now).total_seconds()


_Time = Annotated[
    float | None,
    typer.Option("--time", parser=duration, metavar="DURATION", help="How long, such as 30m or 8h. \\[default: 8h]"),
]
_Until = Annotated[
    datetime.time | None,
    typer.Option(parser=clock_time, metavar="HH:MM", help="Until that time of the day instead, local time."),
]
_StoreFolder = Annotated[
    Path, typer.Option("--store", metavar="DIR", help="Where findings and what was searched are kept, night by night.")
]
_Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes that search.  \\[default: one for each processor]"),
]
_Seed = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Draws the same scripts again. If not given, one that no night has used."),
]


_Sglangs = Annotated[
    list[str] | None,
    typer.Option(
        "--sglang", metavar="VERSION|TREE|WHEEL",
        help="The SGLang under test, as of [bold]sr-fuzz run[/]. Repeatable: they share the time.",
    ),
]  # fmt: skip
_History = Annotated[
    bool | None,
    typer.Option(
        "--history/--no-history",
        help="Play each new finding on the other releases too, to tell which have it. If not given, without --fault.",
        show_default=False,
    ),
]


def nightly(
    time_s: _Time = None,
    until: _Until = None,
    store: _StoreFolder = STORE,
    workers: _Workers = None,
    config: ConfigsOption = None,
    seed: _Seed = None,
    known: KnownOption = None,
    all_new: AllNewOption = False,
    max_scripts: MaxScriptsOption = None,
    exhausters: ExhaustersOption = None,
    sglang: _Sglangs = None,
    history: _History = None,
    canary: CanaryOption = None,
    fault: FaultOption = None,
    limit: LimitOption = None,
    log: LogOption = None,
    junit: JUnitOption = None,
    github: GitHubOption = None,
) -> int:
    """Search for hours, on every processor, and keep what is found in a store.

    Each new finding is minimised, confirmed and written to a folder of its own under [bold]findings/[/] of the store,
    as a pytest test among others, while the search goes on; when nothing else is to be done it is played on other
    releases, to tell which have it. The next night goes on from the store: it knows what was found, completes what was
    not, and draws other scripts. A store has one campaign at a time.

    The exit status is that of [bold]sr-fuzz run[/]; of several SGLangs the first that is not 0.
    """
    if time_s is not None and until is not None:
        raise InputError("--until: says when it ends, so not with --time")
    check_canary(canary, fault)
    if all_new:
        check_all_new(known)
    known_bugs(known)  # refused before an engine starts
    configs = find_configs(config or ["default"])
    check_folder(store, "--store")
    check_target("--log", log)
    check_target("--junit", junit)

    from sr_fuzz.campaign.night import Options
    from sr_fuzz.campaign.workers.messages import EngineSetup

    targets = _prepared(list(dict.fromkeys(sglang or [None])))
    seconds = seconds_until(until, datetime.datetime.now()) if until else time_s if time_s else _DEFAULT_S
    with _opened(store) as opened:
        options = Options(
            configs=configs,
            engine=EngineSetup((), tuple(fault or ()), limit),
            seed=seed if seed is not None else opened.unused_seed(secrets.randbits(32)),
            time_s=seconds,
            workers=workers if workers is not None else len(os.sched_getaffinity(0)),
            known=known_bugs(known, all_new=all_new),
            known_folder=known,
            all_new=all_new,
            canary=canary is not False and not fault,
            exhausters=exhausters,
            history=_histories(targets) if history or (history is None and not fault) else None,
            max_scripts=max_scripts,
        )
        return _shared(targets, options, opened, log, reports(junit, github))


class _Target(NamedTuple):
    """An SGLang to be searched."""

    name: str
    folders: list[str]
    """For an engine's path."""
    problem: EngineError | None = None
    """Why it cannot be."""

    @property
    def point(self) -> str | None:
        """The release, or the folder of a source tree or wheel; None where that is not known."""
        from sr_fuzz.sglang_api.sources import release_on, tree_on, wheel_on

        return tree_on(self.folders) or wheel_on(self.folders) or release_on(self.folders)


def _prepared(sources: Sequence[str | None]) -> list[_Target]:
    """Fetch what is to be fetched; of several SGLangs one may fail."""
    targets: list[_Target] = []
    for source in sources:
        try:
            targets.append(_Target(name_of(source), engines.prepare(source)))
        except EngineError as error:
            targets.append(_Target(name_of(source), [], error))
    return targets


def _histories(targets: Sequence[_Target]) -> HistorySetup:
    """All releases that sr_fuzz was tested with, and what is under test."""
    from sr_fuzz.campaign.workers.messages import HistorySetup
    from sr_fuzz.sglang_api.versions import RELEASES

    points = [target.point for target in targets if target.problem is None and target.point is not None]
    folders = tuple(point for point in points if point.startswith("/"))
    releases = (*RELEASES, *(point for point in points if point not in folders))
    return HistorySetup(tuple(dict.fromkeys(releases)), folders, path=tuple(engines.search_path(None)))


def _shared(
    targets: Sequence[_Target], options: Options, store: Store, log: Path | None, others: Sequence[Report]
) -> int:
    """Search each SGLang in turn; those that come have the time that the ones before them have not used."""
    end = time.monotonic() + options.time_s
    statuses: list[int] = []
    problem: OSError | None = None
    for number, target in enumerate(targets):
        share = max(1.0, (end - time.monotonic()) / (len(targets) - number))
        try:
            with telling_of_failure(target.name, others):
                if target.problem is not None:
                    raise target.problem
                done, error = _searched(_options_of(target, options, share), store, log, others)
        except EngineError as failed:
            if len(targets) == 1:
                raise
            typer.echo(f"sr-fuzz: error: {target.name}: {first_and_last(str(failed))}", err=True)
            statuses.append(TROUBLE)
            continue
        problem = problem or error
        if done.interrupted:
            return campaign_status(done)
        statuses.append(campaign_status(done))
    if problem is not None:
        raise problem
    return next((status for status in statuses if status != OK), OK)


def _options_of(target: _Target, options: Options, time_s: float) -> Options:
    from msgspec.structs import replace

    history = options.history
    return replace(
        options,
        engine=replace(options.engine, sys_path=tuple(target.folders)),
        time_s=time_s,
        known=known_bugs(options.known_folder, engines.version(target.folders), all_new=options.all_new),
        history=replace(history, under_test=target.point) if history is not None else None,
    )


def _searched(
    options: Options, store: Store, log: Path | None, others: Sequence[Report]
) -> tuple[Summary, OSError | None]:
    """Search one SGLang; returns also why not all could be shown."""
    from sr_fuzz.campaign.night import NightCampaign
    from sr_fuzz.campaign.order import RoundRobin
    from sr_fuzz.report.night import NightStatus
    from sr_fuzz.report.terminal import make_console

    waiting = lambda: campaign.waiting  # noqa: E731  # the status shows it of a campaign that is made with it
    status = NightStatus(make_console(), store.record.state, waiting, options.workers, canary=options.canary)
    with status, also_told(status, log=log, others=others) as listener:
        campaign = NightCampaign(options, store, RoundRobin(list(options.configs)), on_event=listener)
        done = campaign.run()
    return done, status.error


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Store]:
    from sr_fuzz.campaign.store import Store, StoreError

    try:
        store = Store(folder)
    except StoreError as error:
        raise InputError(f"--store: {error}") from None
    except OSError as error:
        raise InputError(f"--store: {error.filename}: {error.strerror}") from None
    with contextlib.closing(store):
        yield store
