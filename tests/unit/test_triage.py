"""A new finding that disappears when a known bug is fixed is another face of that bug."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake_engine import FakeEngine, leak
from rich.console import Console
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.bugs.known import fixes, known_signatures
from sr_fuzz.campaign.events import Explained
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.report.summary import summary
from sr_fuzz.script import EngineConfig, Script, StartReq
from sr_fuzz.script.errors import EngineError

FINDING = Finding(
    signature(leak(), EngineConfig()), Script(EngineConfig(), (StartReq("r0"),)), leak(), "0.5.23"
)
A, B = "sr_fuzz.faults.fixes.output:embedding_once", "sr_fuzz.faults.fixes.sessions:refused_turn"
TEST_A, TEST_B = Path("test_a.py"), Path("test_b.py")


def broken(script: Script):
    return leak()


def healthy(script: Script):
    return None


def engine(**rules) -> FakeEngine:
    """``a``, ``b``, ``both``: what breaks while these bugs are fixed; all fixes act."""
    made = FakeEngine(broken, {{"a": A, "b": B, "both": f"{A},{B}"}[name]: rule for name, rule in rules.items()})
    made.unseen = {A, B}
    return made


def explain(made: FakeEngine) -> tuple[Path, ...]:
    return triage(made).explain(FINDING)


def triage(made: FakeEngine) -> Triage:
    return Triage(made, {TEST_A: (A,), TEST_B: (B,)})


def test_it_is_the_bug_without_which_it_is_gone():
    assert explain(engine(a=broken, b=healthy)) == (TEST_B,)


def test_it_is_news_when_it_stays_whatever_is_fixed():
    assert explain(engine(a=broken, b=broken, both=broken)) == ()


def test_it_may_take_two_bugs():
    assert explain(engine(a=broken, b=broken, both=healthy)) == (TEST_A, TEST_B)


def test_a_fix_that_did_not_act_explains_nothing():
    made = engine(a=healthy, b=broken, both=healthy)
    made.unseen = set()
    assert explain(made) == ()


def test_a_fix_that_cannot_be_played_is_passed_over_and_named():
    made = triage(engine(b=healthy))
    assert made.explain(FINDING) == (TEST_B,)
    assert list(made.unplayed) == [A] and "no such function" in made.unplayed[A]


def test_an_engine_that_dies_is_no_fix_that_cannot_be_played():
    """It is trouble for the campaign, and says nothing about the finding."""

    def dies(script: Script):
        raise EngineError("the zygote process is gone")

    with pytest.raises(EngineError, match="zygote"):
        explain(engine(a=dies, b=dies, both=healthy))


def test_a_difference_of_two_runs_is_looked_for_in_two_runs():
    """One run of the fixed engine breaks nothing; two of its runs still differ, so nothing is explained."""
    seen = []

    def differs(script: Script):
        seen.append(script)
        return leak() if len(seen) % 2 == 0 else None

    finding = Finding("determinism:other_trace:radix", FINDING.script, leak(), "0.5.23")
    assert triage(engine(a=differs, b=differs, both=differs)).explain(finding) == ()


def test_the_summary_names_fixes_that_were_not_played(tmp_path: Path):
    made = engine(b=broken)
    done = run_campaign(
        made, scripts=scripts([EngineConfig()]), time_s=600, seed=1, out=tmp_path, known={}, on_event=lambda _: None,
        max_scripts=1, triage=triage(made),
    )  # fmt: skip
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(done))
    assert f"not played: {A}: SGLang did not boot" in capture.get()


def test_a_test_names_its_fixes(tmp_path: Path):
    head = 'SIGNATURE = "a:b"\n{}\n@pytest.mark.{}\ndef test_x(sr_engine): ...\n'
    (tmp_path / "test_one.py").write_text(head.format('MENDED_BY = "m:f"', "xfail"))
    (tmp_path / "test_two.py").write_text(head.format('MENDED_BY = ("m:f", "m:g")', 'sglang_bug("<0.5.20", reason="")'))
    (tmp_path / "test_none.py").write_text(head.format("", "xfail"))
    assert fixes(tmp_path) == {tmp_path / "test_one.py": ("m:f",), tmp_path / "test_two.py": ("m:f", "m:g")}
    assert fixes(tmp_path, "0.5.23") == {tmp_path / "test_one.py": ("m:f",)}


@pytest.mark.parametrize("value", ["FIX", "()", "[]", "''.join(FIX)"])
def test_what_is_no_literal_is_no_fix(tmp_path: Path, value: str):
    """With no fix to play, a hit of that bug would still be there, and a suspect by mistake."""
    (tmp_path / "test_one.py").write_text(
        f'SIGNATURE = "a:b"\nFIXED_BY = {value}\n@pytest.mark.xfail(reason="")\ndef test_x(sr_engine): ...\n'
    )
    assert fixes(tmp_path) == {}


@pytest.mark.parametrize("face", [True, False])
def test_a_campaign_counts_another_face_as_known_and_keeps_its_repro(tmp_path: Path, face: bool):
    made, events = engine(a=healthy if face else broken, b=broken, both=healthy if face else broken), []
    done = run_campaign(
        made, scripts=scripts([EngineConfig()]), time_s=600, seed=1, out=tmp_path, known={}, on_event=events.append,
        max_scripts=3, triage=Triage(made, {TEST_A: (A,), TEST_B: (B,)}),
    )  # fmt: skip
    [tally] = done.findings.values()
    assert tally.status == ("known" if face else "new") and tally.path is not None and tally.path.is_file()
    assert ("TEST_A" if face else "") in tally.reason.upper().replace(".PY", "")
    assert [event.tests for event in events if isinstance(event, Explained)] == ([(TEST_A,)] if face else [])
    # Beside the other tests of its folder it is an expected failure, and known the next time.
    assert len(known_signatures(tmp_path)) == face


def booted(made: FakeEngine) -> list[tuple[str, ...]]:
    """Record the fixes of each engine that is made."""
    made_with: list[tuple[str, ...]] = []
    make = made.with_faults

    def with_faults(*paths: str) -> FakeEngine:
        made_with.append(paths)
        return make(*paths)

    made.with_faults = with_faults
    return made_with


def test_news_costs_one_boot():
    made = engine(a=broken, b=broken, both=broken)
    boots = booted(made)
    assert explain(made) == () and boots == [(A, B)]


def test_only_fixes_that_acted_together_with_the_others_are_tried_alone():
    made = engine(a=broken, b=healthy, both=healthy)
    made.acts = lambda path, script: path == B
    boots = booted(made)
    assert explain(made) == (TEST_B,) and boots == [(A, B), (B,)]


def test_one_clean_run_does_not_explain_a_flaky_finding():
    """It shows in two of five fresh runs: ten clean runs are needed for one percent, and the fourth is not clean."""
    runs: list[Script] = []

    def fourth(script: Script):
        runs.append(script)
        return leak() if len(runs) == 4 else None

    flaky = msgspec.structs.replace(FINDING, reproduced=2, tried=5)
    assert triage(engine(a=fourth, b=broken, both=healthy)).explain(flaky) == (TEST_A, TEST_B) and len(runs) == 4
    clean = engine(a=healthy, b=broken, both=healthy)
    counted = booted_runs(clean)
    assert triage(clean).explain(flaky) == (TEST_A,) and counted() == 10


def booted_runs(made: FakeEngine):
    """Count the runs of the engine on which bug A is fixed."""
    engines: list[FakeEngine] = []
    make = made.with_faults

    def with_faults(*paths: str) -> FakeEngine:
        engines.append(make(*paths))
        return engines[-1]

    made.with_faults = with_faults
    return lambda: sum(len(one.played) for one in engines if one.faults == (A,))


def test_where_all_is_new_the_first_face_of_a_bug_is_and_the_next_is_not(tmp_path: Path):
    """Also the next night, which reads it from the folder."""
    configs = [EngineConfig(), EngineConfig(disable_overlap_schedule=True)]

    def campaign(out: Path, seed: int):
        made = engine(a=healthy, b=broken, both=healthy)
        return run_campaign(
            made, scripts=scripts(configs), time_s=600, seed=seed, out=out, known={}, on_event=lambda _: None,
            max_scripts=20, triage=Triage(made, {TEST_A: (A,), TEST_B: (B,)}, all_new=True),
        )  # fmt: skip

    done = campaign(tmp_path / "one", 1)
    first, other = done.findings.values()
    assert (first.status, other.status) == ("new", "known") and "bug of test_a.py" in first.reason
    assert first.finding is not None and first.finding.gone_with == (A,)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(done))
    assert "cause: the bug of test_a.py" in capture.get() and "Findings: 1 new, 1 known" in capture.get()
    # A folder in which only the first was found.
    assert other.path is not None and first.path is not None
    for path in (other.path, other.path.with_suffix(".json")):
        path.unlink()
    again = campaign(tmp_path / "one", 2)
    assert [tally.status for tally in again.findings.values()] == ["known", "known"]
