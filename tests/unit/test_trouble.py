"""What says nothing about SGLang ends no campaign: it is kept, counted and shown; fresh runs make a finding."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from fake_engine import FakeEngine, leak
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from sr_fuzz import cli
from sr_fuzz.campaign.events import Event, Finished, Summary, TroubleMet
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.campaign.trouble import MAX_IN_A_ROW
from sr_fuzz.cli.app import app
from sr_fuzz.cli.statuses import MEANINGS
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.outcome.files import load
from sr_fuzz.report.terminal import Terminal
from sr_fuzz.script import Abort, EngineConfig, Script, StartReq, Step
from sr_fuzz.script.errors import EngineError

SCRIPTS = st.lists(st.sampled_from([Step(1), Step(2), Step(3), Abort("r0")]), min_size=3, max_size=12).map(
    lambda steps: Script(EngineConfig(), (StartReq("r0"), *steps))
)


class Breaking(FakeEngine):
    """Raises what ``trouble`` gives for the number of a run, counted from 1, in place of playing."""

    def __init__(self, rule: Callable[[Script], Violation | None], trouble: Callable[[int], Exception | None]) -> None:
        super().__init__(rule)
        self.trouble = trouble
        self.runs = 0

    def run(self, script: Script, **options: object) -> Outcome:
        self.runs += 1
        if (error := self.trouble(self.runs)) is not None:
            raise error
        return super().run(script)


def healthy(script: Script) -> None:
    return None


def leaks(script: Script) -> Violation | None:
    return leak() if any(isinstance(action, Abort) for action in script.actions) else None


def campaign(engine: FakeEngine, out: Path, max_scripts: int = 40) -> tuple[Summary, list[Event], str]:
    """The summary, the events, and what the terminal showed."""
    events: list[Event] = []
    output = StringIO()
    with Terminal(Console(file=output, width=300)) as terminal:

        def on_event(event: Event) -> None:
            events.append(event)
            terminal(event)

        summary = run_campaign(
            engine, scripts=SCRIPTS, time_s=600, seed=1, out=out, known={}, on_event=on_event, max_scripts=max_scripts
        )
    assert isinstance(events[-1], Finished)
    return summary, events, output.getvalue()


def test_a_script_that_could_not_be_played_is_kept_and_the_next_one_is_played(tmp_path: Path):
    engine = Breaking(healthy, lambda run: EngineError("the zygote process is gone\nlog") if run == 10 else None)
    summary, events, shown = campaign(engine, tmp_path)
    assert summary.scripts == 40 and engine.restarts == 1 and not summary.gave_up
    (trouble,) = summary.troubles
    assert (trouble.what, trouble.doing, trouble.count) == ("the zygote process is gone", "playing", 1)
    assert trouble.path is not None and trouble.path.parent == tmp_path / "trouble"
    assert load(trouble.path).script.actions[0] == StartReq("r0")
    assert "EngineError: the zygote process is gone" in trouble.path.with_suffix(".txt").read_text()
    assert [event.first for event in events if isinstance(event, TroubleMet)] == [True]
    assert "No violation found in the 40 scripts that were played; 1 script could not be played." in shown
    assert "No violation found.\n" not in shown


def test_an_error_of_our_own_is_trouble_too(tmp_path: Path):
    engine = Breaking(healthy, lambda run: IndexError("list index out of range") if run in (3, 7) else None)
    summary, _, _ = campaign(engine, tmp_path)
    (trouble,) = summary.troubles
    assert (trouble.what, trouble.count) == ("IndexError: list index out of range", 2)
    assert summary.scripts == 40


def test_a_campaign_gives_up_when_nothing_can_be_played_any_more(tmp_path: Path):
    engine = Breaking(healthy, lambda run: EngineError("no memory") if run > 10 else None)
    summary, _, shown = campaign(engine, tmp_path)
    assert summary.scripts == 10 and engine.runs == 10 + MAX_IN_A_ROW
    assert summary.gave_up.endswith("no memory")
    assert "Ended before the time was up" in shown and "No violation found.\n" not in shown


def test_trouble_now_and_then_is_no_reason_to_give_up(tmp_path: Path):
    engine = Breaking(healthy, lambda run: EngineError("no memory") if run % 3 else None)
    summary, _, _ = campaign(engine, tmp_path, max_scripts=20)
    assert summary.scripts == 20 and not summary.gave_up


def test_trouble_while_a_finding_is_minimised_costs_the_minimising_alone(tmp_path: Path):
    state = {"seen": 0}

    def trouble(run: int) -> Exception | None:
        if engine.played and leaks(engine.played[-1]) is not None and not state["seen"]:
            state["seen"] = run
            return KeyError("r0")
        return None

    engine = Breaking(leaks, trouble)
    summary, _, _ = campaign(engine, tmp_path)
    (trouble_met,) = summary.troubles
    assert trouble_met.doing == "minimising"
    (tally,) = summary.findings.values()
    assert tally.status == "new" and tally.finding is not None and tally.finding.reliability == "5 of 5 fresh runs"
    assert summary.scripts == 40


def test_an_engine_that_dies_while_minimising_is_started_anew_and_the_minimising_goes_on(tmp_path: Path):
    """Otherwise it would refuse each candidate that follows, and the finding would keep its whole script."""

    class Dies(FakeEngine):
        """Dead from its third run of a violating script on, until it is restarted."""

        runs_of_violating = 0
        dead = False

        def run(self, script: Script, **options: object) -> Outcome:
            if leaks(script) is not None:
                self.runs_of_violating += 1
                self.dead = self.dead or self.runs_of_violating == 3
            if self.dead:
                raise EngineError("the zygote process is gone")
            return super().run(script)

        def restart(self) -> None:
            super().restart()
            self.dead = False

    engine = Dies(leaks)
    summary, _, _ = campaign(engine, tmp_path)
    (trouble,) = summary.troubles
    assert (trouble.doing, trouble.count, engine.restarts) == ("minimising", 1, 1)
    (tally,) = summary.findings.values()
    assert tally.finding is not None and len(tally.finding.script.actions) == 1


# -- findings that do not show again ---------------------------------------------------------------------------


def test_what_no_fresh_run_shows_is_listed_and_not_written_as_a_test(tmp_path: Path):
    shown_by: list[int] = []

    def once(script: Script) -> Violation | None:
        if leaks(script) is not None and not shown_by:
            shown_by.append(len(engine.played))
            return leak()
        return None

    engine = FakeEngine(once)
    summary, _, shown = campaign(engine, tmp_path)
    (tally,) = summary.findings.values()
    assert tally.status == "unreproduced" and not list(tmp_path.glob("test_*"))
    assert tally.path is not None and tally.path.parent.name == "not-reproduced"
    kept = load(tally.path).finding
    assert kept is not None and (kept.reproduced, kept.tried) == (0, 5)
    assert "Findings: 0 new, 0 known, 1 seen and not reproduced." in shown
    assert "seen, not reproduced  kv_pages: leaked, 1 time" in shown


def test_it_is_followed_up_again_when_it_is_seen_again(tmp_path: Path):
    """The first sight is an unlucky one; from the second on each run shows it."""
    first: list[Script] = []

    def unlucky_first(script: Script) -> Violation | None:
        if leaks(script) is None:
            return None
        if not first:
            first.append(script)
            return leak()
        return leak() if len(engine.played) > 60 else None

    engine = FakeEngine(unlucky_first)
    summary, _, _ = campaign(engine, tmp_path, max_scripts=150)
    (tally,) = summary.findings.values()
    assert tally.status == "new" and tally.finding is not None and tally.finding.reliability == "5 of 5 fresh runs"
    assert len(list(tmp_path.glob("test_*.py"))) == 1


# -- exit statuses and signals ---------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: FakeEngine) -> int:
    monkeypatch.setattr("sr_fuzz.engine.options.make_engine", lambda *args, **kwargs: engine)
    options = ["--seed", "1", "--config", "overlap-chunk16", "--max-scripts", "30", "--no-canary", "--time", "10m"]
    return cli.main(["run", *options, "--out", str(tmp_path)])


def test_a_campaign_that_gave_up_exits_with_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert run(monkeypatch, tmp_path, Breaking(healthy, lambda run: EngineError("no memory"))) == 4


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_its_summary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, status: int
):
    def stop(script: Script) -> None:
        if len(engine.played) == 7:
            os.kill(os.getpid(), number)

    engine = FakeEngine(stop)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    assert run(monkeypatch, tmp_path, engine) == status
    shown = capsys.readouterr().out
    assert "6 scripts in" in shown and "Stopped before the time was up." in shown
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before


def test_under_nohup_a_closed_terminal_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def hang_up(script: Script) -> None:
        if len(engine.played) == 7:
            os.kill(os.getpid(), signal.SIGHUP)

    engine = FakeEngine(hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(monkeypatch, tmp_path, engine) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(engine.played) == 30


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_before_the_first_script_has_the_same_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, status: int
):
    """Typer turns a KeyboardInterrupt into an exception of its own."""

    class Slow(FakeEngine):
        @property
        def sglang_version(self) -> str:
            os.kill(os.getpid(), number)
            return "never"

    assert run(monkeypatch, tmp_path, Slow(healthy)) == status


def test_every_exit_status_is_in_the_readme_and_in_the_help():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for status, meaning in MEANINGS.items():
        assert f"| {status} | {meaning} |" in readme
    told = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert "4: `run`, `nightly`: no script could be played" in told and "143: stopped by SIGTERM" in told
