"""``sr-fuzz configs``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.options import SglangOption

if TYPE_CHECKING:
    from sr_fuzz.script import EngineConfig


def configs(
    check: Annotated[
        bool, typer.Option("--check", help="Boot each of them and say which ones run here; takes some minutes.")
    ] = False,
    sglang: SglangOption = None,
) -> int:
    """List the engine configurations and their sets, and what each of them needs.

    With [bold]--check[/] each is booted, so that one that this machine or this SGLang refuses says why.
    """
    if sglang is not None and not check:
        raise InputError(f"--sglang {sglang}: goes with --check, which boots the configurations on it")
    if not check:
        _list(_needs)
        return 0
    from sr_fuzz.cli.engines import start

    with start(None, sglang=sglang) as engine:
        typer.echo(f"SGLang {engine.sglang_version}")
        seen: dict[EngineConfig, str] = {}
        _list(lambda config: seen[config] if config in seen else seen.setdefault(config, _tried(engine, config)))
    return 0


def _list(told: Callable[[EngineConfig], str]) -> None:
    from sr_fuzz.script.text import config_text
    from sr_fuzz.strategies.configs import CONFIG_SETS

    for name, members in CONFIG_SETS.items():
        typer.echo(f"{name}: {len(members)} configurations")
        for member, configuration in members.items():
            remark = told(configuration)
            typer.echo(f"  {member:<24} {config_text(configuration)}" + (f"  [{remark}]" if remark else ""))


def _needs(config: EngineConfig) -> str:
    from sr_fuzz.strategies.configs import needs

    return needs(config)


def _tried(engine: object, config: EngineConfig) -> str:
    from sr_fuzz.script.errors import EngineError

    if needed := _needs(config):
        return needed
    try:
        engine.start(config)  # type: ignore[attr-defined]
    except EngineError as error:
        return f"refused: {str(error).splitlines()[0]}"
    return "runs"
