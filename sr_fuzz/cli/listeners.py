"""The listeners of a campaign that the options ask for, and the exit status of its summary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sr_fuzz.cli.signals import stopped_status
from sr_fuzz.cli.statuses import BLIND, OK, TROUBLE

if TYPE_CHECKING:
    from sr_fuzz.campaign.events import Event, Listener, Summary


@contextlib.contextmanager
def also_logged(terminal: Listener, path: Path | None) -> Iterator[Listener]:
    """Yield a listener that passes events on to the terminal and to the log, if there is one."""
    if path is None:
        yield terminal
        return
    from sr_fuzz.report.event_log import EventLog

    with EventLog(path) as log:

        def both(event: Event) -> None:
            log(event)
            terminal(event)

        yield both
    if log.problem:
        typer.echo(f"sr-fuzz: note: the log ends before the campaign: {log.problem}", err=True)


def campaign_status(done: Summary) -> int:
    """Return the exit status of a campaign."""
    if done.interrupted:
        return stopped_status()
    nothing_played = bool(done.troubles) and not done.scripts
    return TROUBLE if done.gave_up or nothing_played else BLIND if done.blind else OK
