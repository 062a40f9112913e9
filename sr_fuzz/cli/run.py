"""``sr-fuzz run``."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli import engines
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.options import KNOWN, OUT, EngineKind, EngineOption, FaultOption, SglangOption, duration
from sr_fuzz.cli.shared import find_configs, make_folder

if TYPE_CHECKING:
    from sr_fuzz.script import EngineConfig


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
    differential: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N",
            help="Play each N-th script twice, and each of its requests alone: both must give the same. Not with "
            "--engine persistent or server, where a script finds what others have left.",
        ),
    ] = None,
) -> int:  # fmt: skip
    """Look for findings until the time is up.

    A new finding is minimised, confirmed and written to [bold]--out[/] as a pytest test; a known one is counted.
    The exit status is 0 whether or not something was found.
    """
    configs = _fitting(find_configs(config or ["default"]), engine_kind, asked=config is not None)
    _known(known)  # a folder that cannot be read is no reason to start an engine
    make_folder(out)
    if differential is not None and engine_kind is not EngineKind.LOCAL:
        raise InputError(f"--differential: needs a fresh process for each script, not --engine {engine_kind.value}")

    from sr_fuzz.campaign.loop import run_campaign
    from sr_fuzz.differential import DifferentialEngine
    from sr_fuzz.report.terminal import Terminal, make_console
    from sr_fuzz.script_text import config_text
    from strategies.scripts import scripts

    names = {configuration: name for name, configuration in configs.items()}
    console = make_console()
    with engines.start(fault, engine_kind, len(configs), sglang) as engine, Terminal(console) as terminal:
        run_campaign(
            engine if differential is None else DifferentialEngine(engine, differential),
            scripts=scripts(list(configs.values()), exhausters=exhausters),
            time_s=time_s,
            seed=seed if seed is not None else secrets.randbits(32),
            out=out,
            known=_known(known, engine.sglang_version),
            on_event=terminal,
            max_scripts=max_scripts,
            faults=fault or (),
            name_of=lambda configuration: names.get(configuration, config_text(configuration)),
        )
    return 0


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


def _known(folder: Path, sglang_version: str | None = None) -> dict[str, tuple[Path, str]]:
    from sr_fuzz.campaign.known import known_signatures

    # The default folder may well be missing: there is nothing known then.
    if folder != KNOWN and not folder.is_dir():
        raise InputError(f"--known: {folder} is not a folder")
    return known_signatures(folder, sglang_version)
