"""``sr-fuzz nightly``."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.campaign_options import (
    AllNewOption,
    CanaryOption,
    ConfigsOption,
    ExhaustersOption,
    KnownOption,
    LogOption,
    MaxScriptsOption,
    check_all_new,
    check_canary,
    known_bugs,
)
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.listeners import also_logged, campaign_status
from sr_fuzz.cli.options import FaultOption, LimitOption, SglangOption, duration
from sr_fuzz.cli.shared import check_folder, check_target, find_configs

if TYPE_CHECKING:
    from sr_fuzz.campaign.store import Store

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
    sglang: SglangOption = None,
    canary: CanaryOption = None,
    fault: FaultOption = None,
    limit: LimitOption = None,
    log: LogOption = None,
) -> int:
    """Search for hours, on every processor, and keep what is found in a store.

    Each new finding is minimised, confirmed and written to a folder of its own under [bold]findings/[/] of the store,
    as a pytest test among others, while the search goes on. The next night goes on from the store: it knows what was
    found, completes what was not, and draws other scripts. A store has one campaign at a time.

    The exit status is that of [bold]sr-fuzz run[/].
    """
    if time_s is not None and until is not None:
        raise InputError("--until: says when it ends, so not with --time")
    check_canary(canary, fault)
    if all_new:
        check_all_new(known)
    known_bugs(known)  # refused before an engine starts
    configs = find_configs(config or ["default"])
    check_folder(store)
    check_target("--log", log)

    from sr_fuzz.campaign.night import NightCampaign, Options
    from sr_fuzz.campaign.order import RoundRobin
    from sr_fuzz.campaign.workers.messages import EngineSetup
    from sr_fuzz.report.night import NightStatus
    from sr_fuzz.report.terminal import make_console

    folders = engines.prepare(sglang)
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    with _opened(store) as opened:
        options = Options(
            configs=configs,
            engine=EngineSetup(tuple(folders), tuple(fault or ()), limit),
            seed=seed if seed is not None else opened.unused_seed(secrets.randbits(32)),
            time_s=seconds_until(until, datetime.datetime.now()) if until else time_s if time_s else _DEFAULT_S,
            workers=count,
            known=known_bugs(known, engines.version(folders), all_new=all_new),
            known_folder=known,
            all_new=all_new,
            canary=canary is not False and not fault,
            exhausters=exhausters,
            max_scripts=max_scripts,
        )
        waiting = lambda: campaign.waiting  # noqa: E731  # the status shows it of a campaign that is made with it
        status = NightStatus(make_console(), opened.state, waiting, count)
        with status, also_logged(status, log) as listener:
            campaign = NightCampaign(options, opened, RoundRobin(list(configs)), on_event=listener)
            done = campaign.run()
    if status.error is not None and not done.interrupted:
        raise status.error
    return campaign_status(done)


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
