"""The program with its commands, in the order in which the help text lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from sr_fuzz.cli.bisect import bisect
from sr_fuzz.cli.configs import configs
from sr_fuzz.cli.confirm import confirm
from sr_fuzz.cli.doctor import doctor
from sr_fuzz.cli.emit import emit
from sr_fuzz.cli.errors import exit_status
from sr_fuzz.cli.nightly import nightly
from sr_fuzz.cli.replay import minimise, replay
from sr_fuzz.cli.run import run
from sr_fuzz.cli.sensitivity import sensitivity
from sr_fuzz.cli.statistics import statistics
from sr_fuzz.cli.statuses import MEANINGS

COMMANDS = (run, nightly, replay, minimise, emit, confirm, bisect, sensitivity, statistics, doctor, configs)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="Fuzz SGLang's scheduler with random scripts; shrink and write out what breaks.",
    epilog="Exit status: " + "; ".join(f"{status}: {meaning}" for status, meaning in MEANINGS.items()) + ".",
)

for _command in COMMANDS:
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = None if arguments is None else list(arguments)
    return exit_status(lambda: app(args=given, prog_name="sr-fuzz", standalone_mode=False))


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
