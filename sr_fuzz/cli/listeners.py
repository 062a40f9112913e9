"""The listeners of a campaign that the options ask for, and the exit status of its summary."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from sr_fuzz.cli.signals import stopped_status
from sr_fuzz.cli.statuses import BLIND, OK, TROUBLE
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import first_and_last

if TYPE_CHECKING:
    from sr_fuzz.campaign.events import Event, Listener, Summary


@contextlib.contextmanager
def also_told(terminal: Listener, *, log: Path | None, others: Sequence[Report]) -> Iterator[Listener]:
    """Yield a listener that passes events on to the log, if there is one, to the terminal and to the others."""
    from sr_fuzz.report.event_log import EventLog

    with contextlib.ExitStack() as stack:
        logged = [stack.enter_context(EventLog(log))] if log is not None else []

        def tell(event: Event) -> None:
            for listener in (*logged, terminal, *others):
                listener(event)

        yield tell
    if logged and logged[0].problem:
        typer.echo(f"sr-fuzz: note: the log ends before the campaign: {logged[0].problem}", err=True)
    for report in others:
        if report.problem:
            typer.echo(f"sr-fuzz: note: not written: {report.problem}", err=True)


class Report(Protocol):
    """A listener that writes something when the campaign ends."""

    problem: str
    """Why that could not be written."""

    def __call__(self, event: Event) -> None: ...


def reports(junit: Path | None, github: bool | None) -> list[Report]:
    """Return the listeners for other programs; ``github``: None for where GitHub runs this."""
    from sr_fuzz.report.github import GitHubReport
    from sr_fuzz.report.junit import JUnitReport

    asked: list[Report] = [JUnitReport(junit)] if junit is not None else []
    in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
    return [*asked, GitHubReport(sys.stdout)] if github or (github is None and in_actions) else asked


def name_of(sglang: str | None) -> str:
    """Return what an SGLang is called that was asked for by ``--sglang``, or by nothing."""
    return f"SGLang {sglang}" if sglang is not None else "the installed SGLang"


@contextlib.contextmanager
def telling_of_failure(name: str, others: Sequence[Report]) -> Iterator[None]:
    """Let the reports say that no campaign could start on that SGLang; an earlier report would look like a new one."""
    from sr_fuzz.campaign.events import NotStarted

    try:
        yield
    except EngineError as error:
        for report in others:
            report(NotStarted(name, first_and_last(str(error))))
        raise


def campaign_status(done: Summary) -> int:
    """Return the exit status of a campaign."""
    if done.interrupted:
        return stopped_status()
    return TROUBLE if done.gave_up or not done.scripts else BLIND if done.blind else OK
