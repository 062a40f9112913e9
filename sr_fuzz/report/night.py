"""The live status of a night: speed, cells, findings, what the follower does, and each configuration's yield.

Without a terminal it is a line a minute, and each finding when it is found.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import singledispatchmethod

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sr_fuzz.campaign.events import (
    CanaryPlayed,
    Confirmed,
    Emitted,
    Event,
    Explained,
    FindingKnown,
    FindingNew,
    Finished,
    HistoryDone,
    Minimised,
    Minimising,
    Resumed,
    ScriptDone,
    Started,
    TroubleMet,
)
from sr_fuzz.campaign.record import State
from sr_fuzz.report.bisection import history_lines
from sr_fuzz.report.streams import discard
from sr_fuzz.report.summary import how_to_go_on, summary
from sr_fuzz.report.words import duration, first_line, plural

PLAIN_EVERY_S = 60.0
"""A night of eight hours is five hundred lines."""

_CONFIGS_SHOWN = 12


class NightStatus:
    """A listener of `sr_fuzz.campaign.night`; a context manager, so that the display is taken down whatever happens."""

    def __init__(
        self,
        console: Console,
        state: State,
        waiting: Callable[[], int],
        workers: int,
        *,
        canary: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``state``: of the store. ``waiting``: number of new signatures that wait for the follower.

        ``canary``: whether one is played.
        """
        self._console = console
        self._state = state
        self._waiting = waiting
        self._workers = workers
        self._clock = clock
        self._live: Live | None = None
        self._started: Started | None = None
        self._start = clock()
        self._next_line_s = PLAIN_EVERY_S
        self._scripts = self._steps = 0
        self._per_config: dict[str, tuple[int, int]] = {}
        self._new: dict[str, str] = {}
        """What became of each finding of this night, by its signature."""
        self._known: set[str] = set()
        self._last_new = ""
        self._doing = ""
        self._canary = "canary not played yet" if canary else ""
        self._troubles = 0
        self.error: OSError | None = None
        """Why nothing more is shown."""

    def __enter__(self) -> NightStatus:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):
            self._stop_live()

    def __call__(self, event: Event) -> None:
        """Show an event. Once the output is closed nothing more is shown, and the campaign goes on."""
        if self.error is not None:
            return
        try:
            self._on(event)
        except OSError as error:
            self.error = error
            discard(self._console.file)

    # -- events ------------------------------------------------------------------------------------------------

    @singledispatchmethod
    def _on(self, event: Event) -> None:
        """Ignore events for which nothing is shown."""

    @_on.register
    def _(self, event: Started) -> None:
        self._started, self._start = event, self._clock()
        tree = event.sglang_tree
        named = "" if tree is None or tree in event.sglang_version else f" (tree {escape(tree)})"
        before = f"; {event.found_before} found before" if event.found_before else ""
        nights = len(self._state.nights)
        self._say(
            f"SGLang {event.sglang_version}{named}, {duration(event.time_s)}, {plural(self._workers, 'searcher')}, "
            f"seed {event.seed}; night {nights} of this store, {self._state.scripts:,} scripts so far; "
            f"{plural(event.known, 'known finding')}{before}"
        )
        if self._console.is_interactive:
            self._live = Live(console=self._console, get_renderable=self._status, transient=True, refresh_per_second=2)
            self._live.start()

    @_on.register
    def _(self, event: Resumed) -> None:
        shows = "shows again, and is followed up" if event.shows else "does not show any more"
        self._say(f"unfinished in an earlier campaign: {escape(str(event.path))}: {shows}")

    @_on.register
    def _(self, event: ScriptDone) -> None:
        self._scripts += 1
        self._steps += event.steps
        scripts, violations = self._per_config.get(event.config, (0, 0))
        self._per_config[event.config] = scripts + 1, violations + (event.signature is not None)
        if self._live is None and event.elapsed_s >= self._next_line_s:
            self._next_line_s = event.elapsed_s + PLAIN_EVERY_S
            self._say(f"{duration(event.elapsed_s)}  {self._line()}")

    @_on.register
    def _(self, event: CanaryPlayed) -> None:
        if event.verdict == "blind":
            self._canary = f"BLIND on {event.config}"
            self._say(f"[bold red]BLIND[/] on {escape(event.config)}: canary: {escape(event.why_blind)}")
        elif event.verdict == "found" and not self._canary.startswith("BLIND"):
            self._canary = f"canary found by {event.found_by}"

    @_on.register
    def _(self, event: FindingNew) -> None:
        violation = event.violation
        self._new[event.signature] = "suspect" if event.suspect else "new"
        self._last_new = f"{violation.invariant}: {violation.rule} after {duration(self._clock() - self._start)}"
        kind = "suspect" if event.suspect else "new finding"
        self._say(f"[bold red]{kind}[/] {escape(f'{violation.invariant}: {violation.rule}, on {event.config}')}")
        self._say(f"  {escape(first_line(violation.message))}")

    @_on.register
    def _(self, event: FindingKnown) -> None:
        if event.reason is not None:
            self._known.add(event.signature)

    @_on.register
    def _(self, event: Minimising) -> None:
        self._doing = f"minimising {event.signature}: {event.actions} actions, at most {event.max_runs} runs"

    @_on.register
    def _(self, event: Minimised) -> None:
        self._doing = f"confirming {event.signature}: {plural(event.actions, 'action')}"

    @_on.register
    def _(self, event: Confirmed) -> None:
        if event.tried and not event.reproduced:
            self._new[event.signature] = "not reproduced"
        shown = f"reproduced in {event.reproduced} of {plural(event.tried, 'fresh run')}"
        self._say(f"  {escape(event.signature)}: {shown}")

    @_on.register
    def _(self, event: Explained) -> None:
        self._new.pop(event.signature, None)
        self._known.add(event.signature)
        tests = " and ".join(path.name for path in event.tests)
        self._say(f"  {escape(event.signature)}: known: another face of the bug of {escape(tests)}")

    @_on.register
    def _(self, event: Emitted) -> None:
        self._doing = ""
        self._say(f"  written to [bold]{escape(str(event.path))}[/]")
        if event.beside is not None:
            self._say(f"  {escape(str(event.beside))} was edited, so it stays as it is")

    @_on.register
    def _(self, event: HistoryDone) -> None:
        self._doing = ""
        self._say(f"  {escape(event.signature)} on other SGLangs:")
        for line in history_lines(event.releases, event.trees, event.commits):
            self._say(f"    {escape(line)}")

    @_on.register
    def _(self, event: TroubleMet) -> None:
        self._troubles += 1
        if event.first:
            where = f"; kept as {escape(str(event.path))}" if event.path is not None else ""
            self._say(f"[bold yellow]trouble[/] while {event.doing}: {escape(event.what)}{where}")

    @_on.register
    def _(self, event: Finished) -> None:
        self._stop_live()
        self._console.print(summary(event.summary), soft_wrap=True)
        for line in how_to_go_on(event.summary, event.out):
            self._console.print(line, soft_wrap=True, markup=False)
        if event.summary.interrupted:
            self._say("Stopped before the time was up.")
        if event.summary.gave_up:
            self._say(f"[bold red]Ended before the time was up[/]: {escape(event.summary.gave_up)}")

    # -- status ------------------------------------------------------------------------------------------------

    def _line(self) -> str:
        return f"{self._speed()}  {self._searched()}"

    def _speed(self) -> str:
        elapsed = self._clock() - self._start
        rate, steps = (count / elapsed if elapsed > 0 else 0.0 for count in (self._scripts, self._steps))
        return f"{self._scripts:,} scripts  {rate:.1f}/s  {self._steps:,} steps  {steps:,.0f}/s"

    def _searched(self) -> str:
        return f"{len(self._state.cells)} cells  findings: {self._found()}; {self._waiting()} waiting"

    def _found(self) -> str:
        states = list(self._new.values())
        parts = [f"{states.count('new')} new"]
        parts += [f"{states.count(kind)} {kind}" for kind in ("suspect", "not reproduced") if kind in states]
        parts += [f"{len(self._known)} known"]
        parts += [plural(self._troubles, "trouble")] if self._troubles else []
        return ", ".join(parts)

    def _status(self) -> RenderableType:
        if self._started is None:
            return Text("")
        elapsed = self._clock() - self._start
        left = max(0.0, self._started.time_s - elapsed)
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._started.time_s, completed=min(elapsed, self._started.time_s), width=24)
        head.add_row(bar, f"{duration(left)} left" if left else "finishing", Text(self._speed()))
        doing = self._doing if self._scripts else "starting the engines"
        last = f"last new: {self._last_new}" if self._last_new else ""
        notes = [self._searched(), "  ".join(filter(None, (self._canary, last))), doing]
        lines = [Text(note, style="dim" if number else "", no_wrap=True) for number, note in enumerate(notes) if note]
        return Group(head, *lines, self._configs())

    def _configs(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        most = sorted(self._per_config.items(), key=lambda item: (-item[1][1], -item[1][0]))
        for name, (scripts, violations) in most[:_CONFIGS_SHOWN]:
            table.add_row(Text(f"  {name}"), f"{scripts:,} scripts", plural(violations, "violation"))
        if len(most) > _CONFIGS_SHOWN:
            table.add_row(f"  and {len(most) - _CONFIGS_SHOWN} more", "", "")
        return table

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
