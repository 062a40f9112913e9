"""A campaign on the terminal: live progress, each finding when it is found, and a summary at the end.

Where there is no terminal (a log file, a CI job) progress is a plain line every ten seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
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
    FindingTally,
    Finished,
    Minimised,
    Minimising,
    ScriptDone,
    Started,
    Summary,
)
from sr_fuzz.script_text import text

PLAIN_EVERY_S = 10.0
"""Often enough to see that it lives, rare enough for a log that is kept."""

# A short campaign leaves many unreached, which says little about the strategies.
_SHOWN_KINDS = 12

PLAIN_WIDTH = 120
"""Columns where there is no terminal to ask."""


def make_console(stderr: bool = False) -> Console:
    """A console that does not wrap a log at the 80 columns that Rich assumes without a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False)


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
        self._doing = ""
        self._canary_found = False

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop_live()

    def __call__(self, event: Event) -> None:
        self._on(event)

    # -- events ------------------------------------------------------------------------------------------------

    @singledispatchmethod
    def _on(self, event: Event) -> None:
        """Events that nothing is shown for."""

    @_on.register
    def _(self, event: Started) -> None:
        self._started, self._start = event, self._clock()
        limit = f", at most {event.max_scripts:,} scripts" if event.max_scripts is not None else ""
        known = f"; {_plural(event.known, 'known finding')}" if event.known else ""
        self._say(f"SGLang {event.sglang_version}, {_duration(event.time_s)}{limit}, seed {event.seed}{known}")
        if self._console.is_interactive:
            self._live = Live(console=self._console, get_renderable=self._progress, transient=True)
            self._live.start()

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
            self._say(f"canary: found after {_plural(event.scripts, 'script')} by {escape(event.found_by)}")

    @_on.register
    def _(self, event: FindingNew) -> None:
        self._new += 1
        self._aside_since = self._clock()
        violation = event.violation
        self._say(
            f"[bold red]new finding[/] {escape(f'{violation.invariant}: {violation.rule}')}, on {escape(event.config)}"
        )
        self._say(f"  {escape(_first_line(violation.message))}")

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
        self._say(f"  minimised to {_plural(event.actions, 'action')} in {_plural(event.runs, 'run')}")

    @_on.register
    def _(self, event: Confirmed) -> None:
        self._say(f"  reproduced in {event.reproduced} of {_plural(event.tried, 'fresh run')}")

    @_on.register
    def _(self, event: Explained) -> None:
        self._new -= 1
        self._known.add(event.signature)
        tests = " and ".join(str(path) for path in event.tests)
        self._say(f"  known: another face of the bug of {escape(tests)}, gone when that is mended")

    @_on.register
    def _(self, event: Emitted) -> None:
        self._doing = ""
        if self._aside_since is not None:
            self._set_aside_s += self._clock() - self._aside_since
            self._aside_since = None
        self._say(f"  written to [bold]{escape(str(event.path))}[/]")

    @_on.register
    def _(self, event: Finished) -> None:
        self._stop_live()
        self._console.print(summary(event.summary), soft_wrap=True)
        new = event.summary.new
        if new and new[0].path is not None:
            self._say(f"The repros are in [bold]{escape(str(event.out))}[/]. To run one:")
            self._say(f"  pytest {escape(str(new[0].path))}")
        if event.summary.interrupted:
            self._say("Stopped before the time was up.")

    # -- progress ----------------------------------------------------------------------------------------------

    def _progress(self) -> RenderableType:
        if self._started is None:
            return Text("")
        elapsed = self._clock() - self._start
        left = max(0.0, self._started.time_s - elapsed)
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._started.time_s, completed=min(elapsed, self._started.time_s), width=24)
        row.add_row(bar, f"{_duration(left)} left" if left else "finishing", self._counts())
        return Group(row, Text(self._doing, style="dim")) if self._doing else row

    def _counts(self) -> str:
        now = self._aside_since if self._aside_since is not None else self._clock()
        searched = now - self._start - self._set_aside_s
        rate = self._scripts / searched if searched > 0 else 0.0
        found = f"findings: {self._new} new, {len(self._known)} known"
        return f"{self._scripts:,} scripts  {rate:.1f}/s  {self._steps:,} steps  {found}"

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


# -- the summary -----------------------------------------------------------------------------------------------


def summary(done: Summary) -> RenderableType:
    """What ran, as a table of configurations, and what was found, new findings first."""
    parts: list[RenderableType] = [Text(), _configurations(done), Text(), Text(_totals(done))]
    parts += [Text(line) for line in _gap_lines(done)]
    if done.canary:
        parts.append(_canary(done))
    if done.never_reached:
        parts.append(Text(f"Never reached: {_some(done.never_reached)}."))
    if not done.findings:
        return Group(*parts, Text("No violation found."))
    parts.append(Text(f"Findings: {len(done.new)} new, {len(done.known)} known.", style="bold"))
    for tally in done.new:
        parts += [Text(f"  {line}") for line in _new_lines(tally)]
    for reason in dict.fromkeys(tally.reason for tally in done.known):
        faces = [tally for tally in done.known if tally.reason == reason]
        parts += [Text(f"  {line}") for line in _known_lines(faces)]
    return Group(*parts)


def _totals(done: Summary) -> str:
    return (
        f"{_plural(done.scripts, 'script')} in {done.elapsed_s:.1f} s ({done.scripts_per_s:.1f}/s while searching), "
        f"{done.steps:,} steps, {done.forwards:,} forwards; "
        f"{_plural(len(done.checks), 'invariant')} checked {sum(done.checks.values()):,} times."
    )


def _gap_lines(done: Summary) -> list[str]:
    """What the findings say nothing about."""
    lines = []
    for what, gaps in (("not checked", done.not_checked), ("checked in part", done.coarse)):
        for gap in gaps:
            all_of_them = len(gap.configs) == len(done.configs) > 1
            where = "all configurations" if all_of_them else ", ".join(gap.configs)
            lines.append(f"{what}: {gap.invariant} in {_plural(gap.scripts, 'script')} ({where}): {gap.reason}")
    if done.no_subject:
        lines.append(f"nothing here to check for {', '.join(sorted(done.no_subject))}")
    return lines


def _canary(done: Summary) -> Text:
    """Loud when it was not found."""
    if done.blind:
        lines = [f"BLIND on {name}: the canary was not found: {tally.why_blind}." for name, tally in done.blind.items()]
        return Text("\n".join([*lines, "Where it is blind, that nothing was found says nothing."]), style="bold red")
    found = [tally for tally in done.canary.values() if tally.verdict == "found"]
    if not found:
        played = sum(tally.scripts for tally in done.canary.values())
        return Text(f"canary: undecided: not found yet, in {_plural(played, 'script')}.")
    first = found[0]
    where = f"seen on {len(found)} of {_plural(len(done.configs), 'configuration')}"
    return Text(f"canary: found after {_plural(first.scripts, 'script')} by {first.found_by}; {where}.")


def _configurations(done: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("configuration", no_wrap=True)
    for column in ("scripts", "steps", "forwards", "ms/script", "violations"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, tally in done.configs.items():
        per_script = f"{1000 * tally.wall_s / tally.scripts:.1f}" if tally.scripts else "-"
        counts = (f"{tally.scripts:,}", f"{tally.steps:,}", f"{tally.forwards:,}", per_script, f"{tally.violations:,}")
        table.add_row(escape(name), *counts)
    return table


def _new_lines(tally: FindingTally) -> list[str]:
    details = [_first_line(tally.violation.message)]
    if tally.finding is not None:
        finding = tally.finding
        actions = f"{_plural(len(finding.script.actions), 'action')} of {finding.original_actions}"
        reliability = finding.reliability if finding.tried else "not run again"
        how = f"{reliability}; {actions}, minimised in {_plural(finding.reruns, 'run')}"
        details = [_first_line(finding.violation.message), how, text(finding.script), str(tally.path or "")]
    return [f"new    {_what(tally)}, seen {_plural(tally.count, 'time')}", *_indented(details)]


def _known_lines(faces: Sequence[FindingTally]) -> list[str]:
    """One known bug, with all that it broke."""
    rules = ", ".join(dict.fromkeys(_what(tally) for tally in faces))
    paths = ", ".join(dict.fromkeys(str(tally.path) for tally in faces if tally.path is not None))
    times = _plural(sum(tally.count for tally in faces), "time")
    return [f"known  {rules}, seen {times}", *_indented([faces[0].reason, paths])]


def _what(tally: FindingTally) -> str:
    return f"{tally.violation.invariant}: {tally.violation.rule}"


def _indented(details: Sequence[str]) -> list[str]:
    return [f"       {detail}" for detail in details if detail]


def _some(kinds: Sequence[str]) -> str:
    shown = ", ".join(kinds[:_SHOWN_KINDS])
    rest = len(kinds) - _SHOWN_KINDS
    return f"{shown} and {rest} more (see `sr-fuzz statistics`)" if rest > 0 else shown


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _first_line(message: str) -> str:
    return message.partition("\n")[0]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
