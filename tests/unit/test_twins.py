"""A bug that shows on several kinds of engine is one finding, and two bugs that break one rule are two."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import leak_on_abort
from fake_engine import FakeEngine, Rule, leak
from hypothesis import strategies as st

from sr_fuzz.campaign.events import Summary
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.campaign.twins import twin_of
from sr_fuzz.outcome import Violation
from sr_fuzz.script import Abort, EngineConfig, Pause, Script, StartReq, Step
from sr_fuzz.script.errors import ConfigNotBooted, EngineError
from sr_fuzz.shrink.finding_steps import Investigated, first_seen

KINDS = [EngineConfig(), EngineConfig(disable_overlap_schedule=True), EngineConfig(page_size=4)]

SCRIPTS = st.builds(
    lambda config, actions: Script(config, (StartReq("r0"), *actions)),
    st.sampled_from(KINDS),
    st.lists(st.sampled_from([Step(1), Step(2), Abort("r0"), Pause("retract")]), min_size=1, max_size=9),
)


def campaign(rule: Rule, out: Path, seed: int = 1) -> Summary:
    return run_campaign(
        FakeEngine(rule), scripts=SCRIPTS, time_s=600, seed=seed, out=out, known={}, on_event=lambda _: None,
        max_scripts=60,
    )  # fmt: skip


def by_kind(done: Summary) -> dict[EngineConfig, str]:
    return {tally.finding.script.config: tally.status for tally in done.findings.values() if tally.finding is not None}


def test_one_bug_on_three_kinds_of_engine_is_one_finding(tmp_path: Path):
    done = campaign(leak_on_abort, tmp_path)
    first, *others = done.findings.values()
    assert len(others) == 2 and first.status == "new" and first.path is not None
    for other in others:
        assert other.status == "known" and f"the bug of {first.path.name} on another kind of engine" in other.reason
        # It has a test of its own, for that kind of engine, which is expected to fail.
        assert other.path is not None and other.path != first.path and "xfail" in other.path.read_text()
    assert "xfail" not in first.path.read_text()


def test_the_next_campaign_knows_it_on_the_other_kinds(tmp_path: Path):
    campaign(leak_on_abort, tmp_path)
    done = campaign(leak_on_abort, tmp_path, seed=2)
    assert {tally.status for tally in done.findings.values()} == {"known"}


def test_one_that_was_found_before_is_recognised_on_another_kind(tmp_path: Path):
    def only_the_first(script: Script) -> Violation | None:
        return leak_on_abort(script) if script.config == KINDS[0] else None

    campaign(only_the_first, tmp_path)
    (test,) = tmp_path.glob("test_*.py")
    done = campaign(leak_on_abort, tmp_path, seed=2)
    assert [tally.status for tally in done.findings.values()].count("new") == 0
    assert sum(test.name in tally.reason for tally in done.findings.values()) == 2


def test_another_bug_that_breaks_the_same_rule_on_another_kind_is_new(tmp_path: Path):
    def rule(script: Script) -> Violation | None:
        wanted = Abort if script.config == KINDS[0] else Pause
        return leak() if any(isinstance(action, wanted) for action in script.actions) else None

    done = campaign(rule, tmp_path)
    statuses = by_kind(done)
    assert statuses[KINDS[0]] == "new" and {statuses[KINDS[1]], statuses[KINDS[2]]} == {"new", "known"}


def test_where_the_script_shows_it_in_another_situation_it_is_new(tmp_path: Path):
    """On one kind an abort and a pause leak: the script of the abort leaks there, and that of the pause is another."""

    def rule(script: Script) -> Violation | None:
        kinds = (Abort,) if script.config == KINDS[0] else (Pause,) if script.config == KINDS[1] else (Abort, Pause)
        return leak() if any(isinstance(action, kinds) for action in script.actions) else None

    done = campaign(rule, tmp_path)
    statuses = by_kind(done)
    assert statuses[KINDS[0]] == statuses[KINDS[1]] == "new" and statuses[KINDS[2]] == "known"


def test_a_kind_that_cannot_play_the_script_has_a_finding_of_its_own():
    """An engine that fails for another reason is trouble, and says nothing."""

    def fails(error: EngineError) -> FakeEngine:
        def rule(script: Script) -> Violation | None:
            raise error

        return FakeEngine(rule)

    one, other = (seen(config) for config in KINDS[:2])
    others = [(one.finding, Path("test_a.py"))]
    assert twin_of(other, others, FakeEngine(leak_on_abort)) == Path("test_a.py")
    assert twin_of(other, others, fails(ConfigNotBooted("not that pool"))) is None
    with pytest.raises(EngineError, match="zygote"):
        twin_of(other, others, fails(EngineError("the zygote process is gone")))


def seen(config: EngineConfig) -> Investigated:
    engine, script = FakeEngine(leak_on_abort), Script(config, (StartReq("r0"), Step(2), Abort("r0")))
    return first_seen(script, engine.run(script), engine)
