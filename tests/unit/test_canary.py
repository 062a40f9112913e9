"""A campaign must find its canary, report clearly when it does not, and not count it. The engine is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from fake_engine import FakeEngine, Rule, leak
from hypothesis import strategies as st
from rich.console import Console

from sr_fuzz import cli
from sr_fuzz.campaign.events import CanaryPlayed, Event, ScriptDone, Summary
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.cli import engines
from sr_fuzz.faults.canary import canary
from sr_fuzz.outcome import Violation
from sr_fuzz.report.terminal import Terminal
from sr_fuzz.script import EngineConfig, Script, StartReq, Step

CONFIGS = [EngineConfig(), EngineConfig(max_total_tokens=96)]
NAMES = {config: name for config, name in zip(CONFIGS, ("large", "small"))}


def scripts(configs: list[EngineConfig] = CONFIGS) -> st.SearchStrategy[Script]:
    return st.builds(
        lambda config, n: Script(config, (StartReq("r0"), Step(n))), st.sampled_from(configs), st.integers(1, 9999)
    )


def silent(script: Script) -> None:
    return None


def in_long_scripts(script: Script) -> Violation | None:
    return leak() if any(isinstance(action, Step) and action.n > 3000 for action in script.actions) else None


def campaign(healthy: Rule, faulty: Rule | None, *, unseen: bool = False, **options: object):
    """The summary, the events, and the terminal output."""
    engine = FakeEngine(healthy, {canary.path: faulty} if faulty else {})
    engine.unseen = {canary.path} if unseen else set()
    events: list[Event] = []
    output = StringIO()
    with Terminal(Console(file=output, width=200)) as terminal:
        settings: dict[str, object] = dict(
            scripts=scripts(), time_s=600, seed=1, out=Path("never written"), known={}, max_scripts=100,
            canary=lambda: engine.with_faults(canary.path), name_of=NAMES.__getitem__,
            on_event=lambda event: (events.append(event), terminal(event)),
        )  # fmt: skip
        summary = run_campaign(engine, **(settings | options))  # type: ignore[arg-type]
    return summary, events, output.getvalue()


def test_a_canary_that_is_found_is_told_and_counts_nowhere():
    summary, events, printed = campaign(silent, in_long_scripts)
    without, _, _ = campaign(silent, None, canary=None)
    tally = summary.canary["large"]
    assert (tally.verdict, tally.found_by) == ("found", "kv_pages: leaked")
    assert f"canary: found after {tally.scripts} script" in printed and "BLIND" not in printed
    assert not summary.blind and not summary.findings
    assert (summary.scripts, summary.steps, summary.configs.keys()) == (100, 1000, without.configs.keys())
    assert sum(isinstance(event, ScriptDone) for event in events) == 100
    verdicts = [event.verdict for event in events if isinstance(event, CanaryPlayed) and event.config == "large"]
    assert verdicts == ["undecided"] * (tally.scripts - 1) + ["found"], "found once, it is left alone"


def test_a_campaign_that_does_not_see_its_canary_is_blind():
    summary, events, printed = campaign(silent, silent, unseen=True)
    assert summary.blind and all("no invariant saw it" in tally.why_blind for tally in summary.blind.values())
    assert "BLIND on large" in printed and "that nothing was found says nothing" in printed


def test_one_script_is_not_enough_to_call_it_blind():
    summary, _, printed = campaign(silent, silent, unseen=True, max_scripts=1)
    assert not summary.blind
    assert "canary: undecided" in printed


def test_a_canary_that_never_strikes_is_not_found_either():
    summary, _, _ = campaign(silent, silent, scripts=scripts(CONFIGS[:1]))
    assert summary.blind["large"].why_blind == "it never struck in 50 scripts"
    summary, _, _ = campaign(silent, silent, scripts=scripts(CONFIGS[:1]), max_scripts=49)
    assert not summary.blind


def test_a_canary_that_cannot_be_played_is_blindness_with_its_reason():
    summary, _, printed = campaign(silent, None)
    assert "it could not be played: SGLang did not boot" in summary.blind["large"].why_blind
    assert "Traceback" not in printed


def test_what_the_script_shows_without_it_is_not_the_canary(tmp_path: Path):
    summary, _, _ = campaign(in_long_scripts, lambda script: leak(), out=tmp_path, scripts=scripts(CONFIGS[:1]))
    (found,) = summary.canary.values()
    assert found.verdict == "found"
    summary, _, _ = campaign(lambda script: leak(), lambda script: leak(), out=tmp_path)
    assert {tally.verdict for tally in summary.canary.values()} == {"undecided"}


@pytest.mark.parametrize("invariant", ["hang", "crash"])
def test_an_engine_that_hangs_or_dies_has_not_seen_it(invariant: str):
    summary, _, _ = campaign(silent, lambda script: Violation(invariant, "timeout", "20 s", 0))
    assert {tally.verdict for tally in summary.canary.values()} == {"undecided"}


def test_the_canary_takes_a_small_share_of_the_time():
    now = [0.0]

    def takes(seconds: float, violation: Violation | None) -> Rule:
        def rule(script: Script) -> Violation | None:
            now[0] += seconds
            return violation

        return rule

    many = [EngineConfig(max_total_tokens=64 + n) for n in range(40)]
    summary, events, _ = campaign(
        takes(1.0, None), takes(10.0, leak()), scripts=scripts(many), clock=lambda: now[0],
        name_of=lambda config: str(config.max_total_tokens),
    )  # fmt: skip
    spent = sum(event.wall_s for event in events if isinstance(event, CanaryPlayed))
    assert 0 < spent <= 0.05 * summary.elapsed_s + 10.0
    assert summary.search_s == summary.elapsed_s - spent == 100.0


# -- what was not checked --------------------------------------------------------------------------------------


def test_what_was_not_checked_is_in_the_summary_with_its_reason():
    engine = FakeEngine(silent)
    engine.not_checked = {"kv_pages": "two pools"}
    output = StringIO()
    with Terminal(Console(file=output, width=200)) as terminal:
        summary: Summary = run_campaign(
            engine, scripts=scripts(), time_s=600, seed=1, out=Path("never written"), known={}, max_scripts=30,
            name_of=NAMES.__getitem__, on_event=terminal,
        )  # fmt: skip
    (skipped,) = summary.not_checked
    assert (skipped.what, skipped.reason, skipped.scripts) == ("kv_pages", "two pools", 30)
    assert sorted(skipped.configs) == ["large", "small"]
    assert "not checked: kv_pages in 30 scripts (all configurations): two pools" in output.getvalue()


# -- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``sr-fuzz run`` on an engine that does not see the canary."""
    fake = FakeEngine(silent, {canary.path: silent})
    fake.unseen = {canary.path}

    @contextmanager
    def start(*_args: object, **_options: object) -> Iterator[FakeEngine]:
        yield fake

    monkeypatch.setattr(engines, "start", start)
    base = ["run", "--max-scripts", "30", "--config", "overlap-chunk16", "--out", str(tmp_path)]
    return lambda *options: cli.main([*base, *options])


def test_the_exit_status_of_a_blind_campaign_is_3(run, capsys: pytest.CaptureFixture[str]):
    assert run() == 3
    assert "BLIND on overlap-chunk16" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--no-canary"], ["--fault", "some.faults:double_free"]])
def test_it_can_be_left_out(run, options: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(*options) == 0
    assert "canary" not in capsys.readouterr().out
