"""What a night shows while it runs: at a terminal a status, elsewhere a line a minute and each finding."""

from __future__ import annotations

import io
from pathlib import Path

from fake_engine import leak
from rich.console import Console

from sr_fuzz.campaign.bisection import Row, Verdict, from_rows
from sr_fuzz.campaign.events import (
    CanaryPlayed,
    Confirmed,
    Event,
    Explained,
    FindingKnown,
    FindingNew,
    Finished,
    HistoryDone,
    Minimising,
    ScriptDone,
    Started,
    Summary,
    TroubleMet,
)
from sr_fuzz.campaign.record import Night, State
from sr_fuzz.report.night import NightStatus

STARTED = Started("0.5.23", 7, 600.0, None, Path("/out"), 75)


def script(elapsed_s: float, config: str = "default", found: str | None = None) -> ScriptDone:
    return ScriptDone(config, 100, 90, 0.5, elapsed_s, found)


class Shown:
    """A status with a clock of its own."""

    def __init__(self, *, terminal: bool, width: int = 100) -> None:
        self.output = io.StringIO()
        self.console = Console(file=self.output, force_terminal=terminal, width=width, color_system=None, emoji=False)
        self.now = 0.0
        state = State(nights=[Night("now", "0.5.23", 7)], cells={"a": 1, "b": 1})
        self.status = NightStatus(self.console, state, lambda: 3, 2, clock=lambda: self.now)

    def tell(self, *events: Event) -> str:
        """Returns what was printed."""
        before = len(self.output.getvalue())
        with self.status:
            for event in events:
                self.status(event)
        return self.output.getvalue()[before:]

    def live(self) -> list[str]:
        """What the status shows now."""
        with self.console.capture() as capture:
            self.console.print(self.status._status())
        return capture.get().splitlines()


def test_without_a_terminal_there_is_a_line_a_minute():
    shown = Shown(terminal=False)
    told = shown.tell(STARTED, *(script(float(second)) for second in range(1, 190)))
    first, *minutes = told.splitlines()
    assert first.startswith("SGLang 0.5.23, 10 min 00 s, 2 searchers, seed 7; night 1 of this store")
    assert [line.partition("  ")[0] for line in minutes] == ["1 min 00 s", "2 min 00 s", "3 min 00 s"]
    assert "2 cells  findings: 0 new, 0 known; 3 waiting" in minutes[0]


def test_the_status_shows_all_of_a_night_within_the_width_of_a_terminal():
    shown = Shown(terminal=True)
    shown.tell(
        STARTED, script(1.0), script(2.0, "tiny", "x"), FindingNew("x", leak(), "tiny", 9),
        CanaryPlayed("tiny", "found", 1, 0.5, found_by="kv_pages: leaked"), FindingKnown("y", "that bug"),
        TroubleMet("it broke", "playing", None, first=True), Minimising("x", 9, 150),
    )  # fmt: skip
    shown.now = 100.0
    lines = shown.live()
    assert "8 min 20 s left" in lines[0] and "2 scripts  0.0/s  200 steps  2/s" in lines[0]
    assert lines[1] == "2 cells  findings: 1 new, 1 known, 1 trouble; 3 waiting"
    assert lines[2].startswith("canary found by kv_pages: leaked  last new: kv_pages: leaked after ")
    assert lines[3] == "minimising x: 9 actions, at most 150 runs"
    assert [line.split() for line in lines[4:]] == [
        ["tiny", "1", "scripts", "1", "violation"], ["default", "1", "scripts", "0", "violations"],
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100


def test_before_the_first_script_it_says_what_it_waits_for():
    shown = Shown(terminal=True)
    shown.tell(STARTED)
    assert "starting the engines" in shown.live()


def test_what_became_of_a_finding_is_counted():
    shown = Shown(terminal=False)
    shown.tell(
        STARTED, FindingNew("a", leak(), "tiny", 9), FindingNew("b", leak(), "tiny", 9, suspect=True),
        FindingNew("c", leak(), "tiny", 9), FindingNew("d", leak(), "tiny", 9),
        Confirmed("c", 0, 5), Explained("d", (Path("known.json"),)),
    )  # fmt: skip
    assert "findings: 1 new, 1 suspect, 1 not reproduced, 1 known" in shown.tell(script(60.0))


def test_a_history_is_told_in_a_line_or_two():
    shown = Shown(terminal=False)
    rows = [Row("0.5.22", Verdict("does not show", "")), Row("0.5.23", Verdict("shows", ""))]
    told = shown.tell(HistoryDone("a:b:c", from_rows("a:b:c", rows)))
    assert "a:b:c on other SGLangs" in told and "introduced in 0.5.23; the last without it: 0.5.22" in told


def test_names_of_others_are_no_markup():
    shown = Shown(terminal=False, width=400)
    told = shown.tell(FindingNew("[red]a", leak(), "[bold]x", 9), TroubleMet("[/]", "playing", None, first=True))
    assert "on [bold]x" in told and "[/]" in told


def test_a_closed_output_ends_no_campaign():
    shown = Shown(terminal=False)

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            raise io.UnsupportedOperation

    shown.console.file = Closed()
    shown.status(STARTED)
    assert shown.status.error is not None
    shown.status(Finished(Summary(), Path("/out")))
