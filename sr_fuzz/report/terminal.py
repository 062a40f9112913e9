"""Output of a campaign on the terminal: live progress, each finding when it is found, and a summary at the end.

Without a terminal (a log file, a CI job) progress is a plain line every ten seconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
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
    Minimised,
    Minimising,
    Resumed,
    ScriptDone,
    Started,
    TroubleMet,
)
from sr_fuzz.report.streams import discard
from sr_fuzz.report.summary import how_to_go_on, summary
from sr_fuzz.report.words import duration, first_line, plural

PLAIN_EVERY_S = 10.0
"""Often enough to see that the campaign is running, and rarely enough for a log that is kept."""

PLAIN_WIDTH = 120
"""Width in columns where there is no terminal."""


class _Console(Console):
    """A console whose reader may be gone, as after ``| head``."""

    def on_broken_pipe(self) -> None:
        """Raise what any other stream would raise. Rich ends the interpreter with status 1, which is an answer here."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def make_console(stderr: bool = False) -> Console:
    """Return a console that does not wrap a log at the 80 columns that Rich assumes without a terminal.

    Nor does it read names between colons, such as those in a signature, as emoji.
    """
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False, emoji=False)


class Terminal:
    """A listener of `run_campaign`; a context manager, so that the live display is taken down whatever happens."""

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console if console is not None else make_console()
        self._clock = clock
        self._live: Live | None = None
        self._started: Started | None = None
        self._start = 0.0
        self._set_aside_s = 0.0
        self._aside_since: float | None = None
        self._next_line_s = PLAIN_EVERY_S
        self._scripts = self._steps = 0
        self._new = 0
        self._known: set[str] = set()
        self._suspects = 0
        self._doing = ""
        self._canary_found = False
        self.error: OSError | None = None
        """Why nothing more is shown."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):  # the terminal is closed
            self._stop_live()

    def __call__(self, event: Event) -> None:
        """Show an event. Once the output is closed (a closed terminal, an ended pipe) nothing more is shown.

        A campaign does not end for it: what it finds is on the disk.
        """
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
        limit = f", at most {event.max_scripts:,} scripts" if event.max_scripts is not None else ""
        known = f"; {plural(event.known, 'known finding')}" if event.known else ""
        known += f"; {event.found_before} found before in {escape(str(event.out))}" if event.found_before else ""
        tree = event.sglang_tree
        named = "" if tree is None or tree in event.sglang_version else f" (tree {escape(tree)})"
        self._say(f"SGLang {event.sglang_version}{named}, {duration(event.time_s)}{limit}, seed {event.seed}{known}")
        if self._console.is_interactive:
            self._live = Live(console=self._console, get_renderable=self._progress, transient=True)
            self._live.start()

    @_on.register
    def _(self, event: Resumed) -> None:
        shows = "shows again, and is followed up" if event.shows else "does not show any more"
        self._say(f"unfinished in an earlier campaign: {escape(str(event.path))}: {shows}")

    @_on.register
    def _(self, event: ScriptDone) -> None:
        self._scripts += 1
        self._steps += event.steps
        if self._live is None and event.elapsed_s >= self._next_line_s:
            self._next_line_s = event.elapsed_s + PLAIN_EVERY_S
            self._say(f"{event.elapsed_s:5.0f} s  {self._counts()}")

    @_on.register
    def _(self, event: CanaryPlayed) -> None:
        self._set_aside_s += event.wall_s
        if event.verdict == "blind":
            self._say(f"[bold red]BLIND[/] on {escape(event.config)}: canary: {escape(event.why_blind)}")
        elif event.verdict == "found" and not self._canary_found:
            self._canary_found = True
            self._say(f"canary: found after {plural(event.scripts, 'script')} by {escape(event.found_by)}")

    @_on.register
    def _(self, event: FindingNew) -> None:
        self._new += not event.suspect
        self._suspects += event.suspect
        self._aside_since = self._clock()
        violation = event.violation
        kind = "suspect" if event.suspect else "new finding"
        what = escape(f"{violation.invariant}: {violation.rule}")
        self._say(f"[bold red]{kind}[/] {what}, on {escape(event.config)}")
        self._say(f"  {escape(first_line(violation.message))}")

    @_on.register
    def _(self, event: FindingKnown) -> None:
        if event.reason is not None:
            self._known.add(event.signature)

    @_on.register
    def _(self, event: Minimising) -> None:
        self._doing = f"minimising a script of {event.actions} actions, at most {event.max_runs} runs"

    @_on.register
    def _(self, event: Minimised) -> None:
        self._doing = "confirming"
        self._say(f"  minimised to {plural(event.actions, 'action')} in {plural(event.runs, 'run')}")

    @_on.register
    def _(self, event: Confirmed) -> None:
        self._say(f"  reproduced in {event.reproduced} of {plural(event.tried, 'fresh run')}")

    @_on.register
    def _(self, event: Explained) -> None:
        self._new -= not event.suspect
        self._suspects -= event.suspect
        self._known.add(event.signature)
        tests = " and ".join(str(path) for path in event.tests)
        how = "gone when that is mended" if event.by == "fix" else "with the same situation around its violation"
        self._say(f"  known: another face of the bug of {escape(tests)}, {how}")

    @_on.register
    def _(self, event: Emitted) -> None:
        self._doing = ""
        if self._aside_since is not None:
            self._set_aside_s += self._clock() - self._aside_since
            self._aside_since = None
        self._say(f"  written to [bold]{escape(str(event.path))}[/]")
        if event.beside is not None:
            self._say(f"  {escape(str(event.beside))} was edited, so it stays as it is")

    @_on.register
    def _(self, event: TroubleMet) -> None:
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

    # -- progress ----------------------------------------------------------------------------------------------

    def _progress(self) -> RenderableType:
        if self._started is None:
            return Text("")
        elapsed = self._clock() - self._start
        left = max(0.0, self._started.time_s - elapsed)
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._started.time_s, completed=min(elapsed, self._started.time_s), width=24)
        row.add_row(bar, f"{duration(left)} left" if left else "finishing", self._counts())
        return Group(row, Text(self._doing, style="dim")) if self._doing else row

    def _counts(self) -> str:
        now = self._aside_since if self._aside_since is not None else self._clock()
        searched = now - self._start - self._set_aside_s
        rate = self._scripts / searched if searched > 0 else 0.0
        found = f"findings: {self._new} new, {len(self._known)} known"
        found += f", {self._suspects} suspect" if self._suspects else ""
        return f"{self._scripts:,} scripts  {rate:.1f}/s  {self._steps:,} steps  {found}"

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
