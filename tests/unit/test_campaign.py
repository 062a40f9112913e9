"""What a user sees of a campaign: its findings, its end, and its listing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from command_line import CORE, leak_on_abort
from fake_engine import FakeEngine, leak
from hypothesis import strategies as st
from rich.console import Console

from sr_fuzz import cli
from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.campaign.events import (
    Emitted,
    Event,
    FindingKnown,
    FindingNew,
    FindingTally,
    Finished,
    Minimised,
    Started,
    Summary,
)
from sr_fuzz.campaign.example import play_example
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.engine.contract import Isolation
from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.outcome.files import load
from sr_fuzz.report.terminal import Terminal
from sr_fuzz.script import Abort, Continue, EngineConfig, FlushCache, Pause, Prompt, Script, StartReq, Step
from sr_fuzz.script.errors import ConfigNotBooted
from sr_fuzz.script.text import text

NOISE = (Step(1), Step(4), Pause("retract"), Pause("in_place"), Continue(), FlushCache(), Abort("r0"), Abort("r1"))

SCRIPTS = st.builds(
    lambda config, one, two: Script(config, (StartReq("r0", Prompt(length=30)), *one, StartReq("r1"), *two)),
    st.sampled_from([EngineConfig(), EngineConfig(max_total_tokens=96)]),
    st.lists(st.sampled_from(NOISE), max_size=20),
    st.lists(st.sampled_from(NOISE), max_size=20),
)
"""Scripts for campaigns: a million of them, so that the tests of this file do not depend on the real strategies."""


def campaign(engine: FakeEngine, out: Path, **options: object) -> tuple[Summary, list[Event]]:
    events: list[Event] = []
    settings: dict[str, object] = dict(scripts=SCRIPTS, time_s=600, seed=1, out=out, known={}, max_scripts=60)
    summary = run_campaign(engine, on_event=events.append, **(settings | options))  # type: ignore[arg-type]
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    return summary, events


def kinds(events: list[Event], *wanted: type) -> list[type]:
    return [type(event) for event in events if isinstance(event, wanted)]


def test_a_new_finding_is_minimised_confirmed_and_written_once(tmp_path: Path):
    summary, events = campaign(FakeEngine(leak_on_abort), tmp_path)
    assert kinds(events, FindingNew, Minimised, Emitted) == [FindingNew, Minimised, Emitted]
    (tally,) = summary.findings.values()
    assert (tally.status, summary.scripts) == ("new", 60)
    assert tally.count == 1 + kinds(events, FindingKnown).count(FindingKnown) > 1
    assert tally.finding is not None and tally.path is not None
    assert (tally.finding.script.actions, tally.finding.reliability) == (CORE, "5 of 5 fresh runs")
    assert load(tally.path).script.actions == CORE


def test_a_known_finding_is_only_counted(tmp_path: Path):
    listed = tmp_path / "test_known.py"
    known = {"kv_pages:leaked:radix+overlap": (listed, "a cause")}
    summary, events = campaign(FakeEngine(leak_on_abort), tmp_path, known=known)
    (tally,) = summary.findings.values()
    assert (tally.status, tally.reason, tally.path) == ("known", "a cause", listed)
    assert not kinds(events, FindingNew, Emitted) and not list(tmp_path.iterdir())


def test_one_finding_does_not_hide_another(tmp_path: Path):
    def rule(script: Script) -> Violation | None:
        if any(isinstance(a, Pause) for a in script.actions):
            return Violation("pause", "output grew", "r0 got 3 tokens", 5)
        return leak_on_abort(script)

    summary, _ = campaign(FakeEngine(rule), tmp_path)
    assert set(summary.findings) == {"pause:output grew:radix+overlap", "kv_pages:leaked:radix+overlap"}
    assert len(list(tmp_path.glob("test_*.py"))) == 2


def test_a_campaign_says_what_ran(tmp_path: Path):
    summary, _ = campaign(FakeEngine(lambda script: None), tmp_path, max_scripts=150)
    assert (summary.scripts, summary.steps, summary.forwards) == (150, 1500, 1050)
    assert sum(tally.scripts for tally in summary.configs.values()) == 150
    assert summary.checks == {"kv_pages": 1500}


def test_no_script_is_played_twice_and_the_seed_decides(tmp_path: Path):
    one, same, other = (FakeEngine(lambda script: None) for _ in range(3))
    campaign(one, tmp_path, max_scripts=120)
    campaign(same, tmp_path, max_scripts=120)
    campaign(other, tmp_path, max_scripts=120, seed=2)
    assert one.played == same.played
    assert len(set(one.played)) == 120
    assert len(set(one.played) & set(other.played)) < 60


def test_a_campaign_ends_when_the_time_is_up(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> None:
        now[0] += 1.0

    summary, _ = campaign(FakeEngine(rule), tmp_path, time_s=20, max_scripts=None, clock=lambda: now[0])
    assert (summary.scripts, summary.elapsed_s, summary.scripts_per_s) == (20, 20.0, 1.0)


def test_of_several_strategies_each_has_its_share_of_the_time(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> None:
        now[0] += 1.0

    def only(pool: int) -> st.SearchStrategy[Script]:
        config = EngineConfig(max_total_tokens=pool)
        return st.builds(lambda n: Script(config, (StartReq("r0"), Step(n))), st.integers(1, 9999))

    engine = FakeEngine(rule)
    campaign(engine, tmp_path, scripts=[only(96), only(128)], time_s=40, max_scripts=None, clock=lambda: now[0])
    assert [script.config.max_total_tokens for script in engine.played] == [96] * 20 + [128] * 20


def test_a_campaign_ends_when_there_are_no_other_scripts(tmp_path: Path):
    few = st.sampled_from([Script(EngineConfig(), (StartReq("r0"), Step(n))) for n in range(1, 6)])
    summary, _ = campaign(FakeEngine(lambda script: None), tmp_path, scripts=few, max_scripts=None)
    assert summary.scripts == 5


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal: it is ignored when the tests are started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_with_the_summary_and_loses_no_finding(tmp_path: Path):
    runs = [0]

    def rule(script: Script) -> Violation | None:
        violation = leak_on_abort(script)
        runs[0] += violation is not None
        if runs[0] == 3:  # during minimising
            signal.raise_signal(signal.SIGINT)
        return violation

    summary, events = campaign(FakeEngine(rule), tmp_path)
    assert summary.interrupted
    (tally,) = summary.new
    assert tally.path is not None and leak_on_abort(load(tally.path).script)


def test_a_hang_is_not_minimised_for_ever(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> Violation | None:
        now[0] += 20.0
        return Violation("hang", "no step", "20 s without a step", 4)

    engine = FakeEngine(rule)
    campaign(engine, tmp_path, max_scripts=1, clock=lambda: now[0])
    assert len(engine.played) < 15


def test_a_finding_is_not_confirmed_for_ever_where_each_run_starts_a_scheduler(tmp_path: Path):
    """The script takes no time; a fresh start takes half a minute, as on a server."""
    now = [0.0]

    class Slow(FakeEngine):
        isolation: Isolation = "shared"

        def fresh(self) -> FakeEngine:
            def rule(script: Script) -> Violation | None:
                now[0] += 30.0
                return self.rule(script)

            return FakeEngine(rule)

    summary, _ = campaign(Slow(leak_on_abort), tmp_path, max_scripts=40, clock=lambda: now[0], time_s=10_000)
    (tally,) = summary.new
    assert (tally.finding.reproduced, tally.finding.tried) == (2, 2)


def test_run_exits_0_with_or_without_findings(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--max-scripts", "40", "--seed", "5", "--config", "overlap-chunk16", "--out", "repros"]
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    (repro,) = Path("repros").glob("test_*.py")
    for wanted in ("seed 5", "new finding kv_pages: leaked", f"pytest {repro}", "overlap-chunk16", "40 scripts in"):
        assert wanted in output
    engine.rule = lambda script: None
    assert cli.main(arguments) == 0
    assert "No violation found." in capsys.readouterr().out


# -- the terminal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interactive", [True, False])
def test_a_listing_of_a_campaign_is_plain_text_whatever_it_holds(tmp_path: Path, interactive: bool):
    """Brackets are markup to the terminal library; messages and signatures contain many of them."""
    message = "pages [1, 2] of [/bold]: [red]"

    def rule(script: Script) -> Violation | None:
        return leak(message=message) if leak_on_abort(script) else None

    output = StringIO()
    console = Console(file=output, width=200, force_terminal=interactive, force_interactive=interactive, no_color=True)
    with Terminal(console) as terminal:
        run_campaign(
            FakeEngine(rule), scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path,
            known={}, on_event=terminal, max_scripts=40, name_of=lambda config: "[paged]",
        )  # fmt: skip
    assert message in output.getvalue()
    assert "[paged]" in output.getvalue()
    assert "Findings: 1 new, 0 known." in output.getvalue()


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> None:
        now[0] += 1.0

    output = StringIO()
    with Terminal(Console(file=output, width=200), clock=lambda: now[0]) as terminal:
        run_campaign(
            FakeEngine(rule), scripts=SCRIPTS, time_s=35, seed=1, out=tmp_path, known={},
            on_event=terminal, clock=lambda: now[0],
        )  # fmt: skip
    lines = [line for line in output.getvalue().splitlines() if "findings:" in line]
    assert [line.split(" s ")[0].strip() for line in lines] == ["10", "20", "30"]


# -- configurations that this SGLang does not boot -------------------------------------------------------------


def nothing_wrong(script: Script) -> None:
    return None


class SmallOnly(FakeEngine):
    """Boots one of the two configurations."""

    def run(self, script: Script, **options: object) -> Outcome:
        if script.config.max_total_tokens != 96:
            raise ConfigNotBooted("SGLang did not boot with this configuration: ValueError: no such core\nTraceback")
        return super().run(script)


def test_the_others_are_played_and_it_is_named(tmp_path: Path):
    summary, _ = campaign(SmallOnly(nothing_wrong), tmp_path, name_of=lambda config: str(config.max_total_tokens))
    assert summary.scripts == 60 and set(summary.configs) == {"96"}
    (gap,) = summary.not_played
    assert gap.what.startswith("configuration ") and gap.reason.endswith("ValueError: no such core")


def test_where_none_boots_the_campaign_says_why(tmp_path: Path):
    large = SCRIPTS.filter(lambda script: script.config.max_total_tokens != 96)
    output = StringIO()
    terminal = Terminal(Console(file=output))
    with pytest.raises(ConfigNotBooted, match="no such core"), terminal:
        run_campaign(
            SmallOnly(nothing_wrong), scripts=large, time_s=600, seed=1, out=tmp_path, known={}, on_event=terminal
        )
    # Nothing that looks like a result stands before the error.
    assert output.getvalue().count("\n") == 1 and output.getvalue().startswith("SGLang 0.0.fake, ")


def test_a_closed_output_does_not_end_it(tmp_path: Path):
    class Closing(StringIO):
        """A terminal that somebody closes."""

        def write(self, text: str) -> int:
            if len(self.getvalue()) > 200:
                raise OSError(5, "Input/output error")
            return super().write(text)

    with Terminal(Console(file=Closing(), width=120)) as terminal:
        summary = run_campaign(
            FakeEngine(leak_on_abort), scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, max_scripts=60,
            on_event=terminal,
        )  # fmt: skip
    assert summary.scripts == 60 and len(list(tmp_path.glob("test_*.py"))) == 1


# -- known bugs, shown to who has seen none --------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, out: Path, engine: FakeEngine, *options: str) -> int:
    monkeypatch.setattr("sr_fuzz.engine.options.make_engine", lambda *args, **kwargs: engine)
    given = ["--seed", "1", "--config", "overlap-chunk16", "--max-scripts", "30", "--no-canary", "--time", "10m"]
    return cli.main(["run", *given, "--out", str(out), *options])


def test_without_the_list_a_known_bug_is_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bug = next(bug for bug in shipped().values() if bug.violation is not None and "overlap" in bug.signature)

    def rule(script: Script) -> Violation | None:
        found = bug.violation
        assert found is not None
        return found if signature(found, script.config) == bug.signature else None

    scripts = st.builds(lambda n: Script(bug.script.config, (StartReq("r0"), Step(n))), st.integers(1, 99))
    monkeypatch.setattr("sr_fuzz.strategies.scripts.scripts", lambda *args, **kwargs: scripts)
    assert run(monkeypatch, tmp_path / "listed", FakeEngine(rule)) == 0
    assert not list(tmp_path.glob("listed/test_*.py"))
    assert run(monkeypatch, tmp_path / "new", FakeEngine(rule), "--all-new") == 0
    assert len(list(tmp_path.glob("new/test_*.py"))) == 1


def test_all_new_and_a_list_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["run", "--all-new", "--known", str(tmp_path)]) == 2
    assert "--all-new: takes the known bugs away" in capsys.readouterr().err


def test_the_example_is_a_known_bug_as_it_would_have_been_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    by_script = {bug.script: bug for bug in shipped().values()}
    engine = FakeEngine(lambda script: by_script[script].violation if script in by_script else None)
    assert run(monkeypatch, tmp_path, engine, "--example") == 0
    shown = capsys.readouterr().out
    bug = by_script[engine.played[-1]]
    assert bug.violation is not None
    for part in (bug.violation.message.splitlines()[0], text(bug.script), bug.reason, "sr-fuzz replay --trace "):
        assert part in shown
    assert "does not show" not in shown


def test_an_example_that_does_not_show_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, tmp_path, FakeEngine(lambda script: None), "--example") == 0
    assert "it does not show" in capsys.readouterr().out


def test_the_example_counts_bugs_and_not_files_or_signatures():
    by_cause: dict[str, list[Path]] = {}
    for path, bug in shipped().items():
        by_cause.setdefault(bug.reason, []).append(path)
    cause, paths = next((cause, paths) for cause, paths in by_cause.items() if len(paths) > 1)
    done = Summary()
    for number, path in enumerate(paths):
        tally = FindingTally("known", leak(), path=path, reason=cause, causes={cause: 1})
        done.findings[f"signature {number}"] = tally
    example = play_example(FakeEngine(lambda script: None), done)
    assert example is not None and (example.met, example.verified) == (1, 1)
    assert example.open_bugs == len(by_cause)
