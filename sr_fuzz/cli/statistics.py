"""``sr-fuzz statistics``."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.options import FaultOption, SglangOption, duration
from sr_fuzz.cli.shared import check_target, find_configs


def statistics(
    config_set: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", help="A set of configurations. Repeatable.")
    ] = None,
    config: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A configuration. Repeatable.")] = None,
    scripts: Annotated[int, typer.Option(min=1, metavar="N", help="Scripts to play, over all configurations.")] = 200,
    time_s: Annotated[
        float | None, typer.Option("--time", parser=duration, metavar="DURATION", help="Stop then, such as 60s, 5m.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Draws the same scripts again.")] = None,
    exhausters: Annotated[
        bool | None,
        typer.Option(
            "--exhausters/--no-exhausters",
            help="Scripts that hold memory, rows or locks: all or none of them. If not given, one in ten.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the numbers there too.")] = None,
    sglang: SglangOption = None,
    fault: FaultOption = None,
) -> int:
    """Play scripts, and show how often each action, stage, batch mode, retraction … was reached.

    What no script has reached is marked, and listed at the end: a strategy for it is missing, or dead. The exit status
    is 0 whatever was found.
    """
    named = find_configs(config_set or (), option="--set") | find_configs(config or (), option="--config")
    configs = named or find_configs(["default"])
    check_target("--json", json)

    import msgspec
    from rich.progress import Progress

    from sr_fuzz.campaign.statistics import measure
    from sr_fuzz.outcome.writing import write_whole
    from sr_fuzz.report.statistics import print_statistics
    from sr_fuzz.report.terminal import make_console
    from sr_fuzz.strategies.scripts import scripts as strategy

    progress = make_console(stderr=True)
    with (
        engines.start(fault, sglang=sglang) as engine,
        Progress(console=progress, transient=True, disable=not progress.is_terminal) as bar,
    ):
        task = bar.add_task("playing scripts", total=scripts)
        found = measure(
            engine,
            configs,
            strategy(list(configs.values()), exhausters=exhausters),
            count=scripts,
            seed=seed if seed is not None else secrets.randbits(32),
            time_s=time_s,
            on_script=lambda done: bar.update(task, completed=done),
        )
    print_statistics(make_console(), found)
    if json is not None:
        write_whole(json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return 0
