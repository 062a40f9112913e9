"""What one SGLang says of a finding: that it shows, that it does not, or that this cannot be told there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import SCRIPT
from fake_engine import FakeEngine, Rule, leak
from msgspec.structs import replace

from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.campaign.bisection import Verdict
from sr_fuzz.campaign.showing import Wanted, judge, wanted_in, wanted_of
from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.outcome import Finding, Outcome, Violation, signature
from sr_fuzz.outcome.files import load, save_finding
from sr_fuzz.script import EngineConfig, Script, ScriptError, to_json
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, NotPlayed

LEAKED = signature(leak(), SCRIPT.config)
WANTED = Wanted(SCRIPT, LEAKED)
STUCK = Violation("liveness", "stuck_waiting", "r0 waits", 4)


def says(violation: Violation | None) -> Rule:
    return lambda script: violation


class Unwilling(FakeEngine):
    """An engine that raises errors: at its import, at a boot, at a run."""

    def __init__(self, rule: Rule = says(None), **errors: Any) -> None:
        super().__init__(rule)
        self.errors = errors

    @property
    def sglang_version(self) -> str:  # type: ignore[override]
        self._fail("importing")
        return "0.5.20"

    def start(self, config: EngineConfig) -> None:
        self._fail("plain" if config == EngineConfig() else "booting")
        super().start(config)

    def with_faults(self, *paths: str) -> FakeEngine:
        return self

    def run(self, script: Script, **kwargs: Any) -> Outcome:
        self._fail("running")
        outcome = super().run(script, **kwargs)
        return self.errors.get("outcome", lambda each: each)(outcome)

    def _fail(self, doing: str) -> None:
        error = self.errors.get(doing)
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error is not None:
            raise error


def on_other(**changes: Any) -> Wanted:
    """Wanted on another configuration than the plain one."""
    return replace(WANTED, script=Script(EngineConfig(page_size=4), SCRIPT.actions), **changes)


# -- it shows, or it does not ----------------------------------------------------------------------------------


def test_the_same_signature_shows():
    verdict = judge(FakeEngine(says(leak())), WANTED)
    assert (verdict.kind, verdict.signature, verdict.runs) == ("shows", LEAKED, 1)
    assert verdict.reason == "kv_pages: leaked: page 5 is owned by nobody"


def test_the_same_rule_at_another_place_shows():
    place = ("mem_cache/pool.py:take: x = 1",)
    there = Violation("kv_pages", "leaked", "page 5", 9, "end", place)
    verdict = judge(FakeEngine(says(there)), WANTED)
    assert verdict.kind == "shows" and verdict.signature != LEAKED
    assert verdict.reason == "kv_pages: leaked, in mem_cache/pool.py:take: page 5"


def test_another_violation_is_a_verdict_of_its_own():
    verdict = judge(FakeEngine(says(STUCK)), WANTED)
    assert verdict.kind == "shows something else" and verdict.reason == "liveness: stuck_waiting: r0 waits"


@pytest.mark.parametrize("listed", [signature(STUCK, SCRIPT.config), "liveness:stuck_waiting:*"])
def test_a_signature_that_the_test_lists_shows(listed: str):
    assert judge(FakeEngine(says(STUCK)), replace(WANTED, also_seen_as=(listed,))).kind == "shows"


@pytest.mark.parametrize(("version", "kind"), [("0.5.18", "shows"), ("0.5.19", "shows something else")])
def test_what_a_known_bug_shows_on_that_release_alone_shows_there(version: str, kind: str):
    stuck = signature(STUCK, SCRIPT.config)
    bug = replace(next(iter(shipped().values())), also_seen_as=(), faces={"<0.5.19": stuck})
    engine = FakeEngine(says(STUCK))
    engine.sglang_version = version  # type: ignore[misc]
    assert judge(engine, replace(WANTED, bug=bug)).kind == kind


def test_no_violation_does_not_show():
    assert judge(FakeEngine(says(None)), WANTED) == Verdict("does not show", "no violation in 10 steps", None, 1)


# -- flaky findings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reproduced", "runs"), [(5, 1), (4, 3), (1, 21), (0, 1)])
def test_a_flaky_finding_needs_several_clean_runs(reproduced: int, runs: int):
    finding = Finding(LEAKED, SCRIPT, leak(), "0.0.fake", reproduced=reproduced, tried=5)
    engine = FakeEngine(says(None))
    assert judge(engine, wanted_of(finding)).runs == runs == len(engine.played)


def test_the_first_run_that_shows_it_ends_the_runs():
    shown = iter([None, STUCK, leak(), None])
    verdict = judge(FakeEngine(lambda script: next(shown)), replace(WANTED, runs=4))
    assert (verdict.kind, verdict.runs) == ("shows", 3)


# -- what cannot be told ---------------------------------------------------------------------------------------


def test_an_sglang_that_cannot_be_imported_does_not_boot():
    error = EngineError("cannot import SGLang: SyntaxError: invalid syntax, at x.py:3")
    verdict = judge(Unwilling(importing=error), WANTED)
    assert verdict == Verdict("does not boot", "cannot import SGLang: SyntaxError: invalid syntax, at x.py:3")


REFUSED = ConfigNotBooted("this SGLang's ServerArgs has no page_size\nTraceback\n  ...\nsee above")


def test_a_configuration_that_only_this_sglang_refuses_cannot_be_expressed():
    verdict = judge(Unwilling(booting=REFUSED), on_other())
    assert verdict.kind == "cannot be expressed" and "ServerArgs has no page_size" in verdict.reason
    assert "\n" not in verdict.reason


def test_an_sglang_that_boots_with_no_configuration_does_not_boot():
    broken = ConfigNotBooted("SGLang did not boot with this configuration: NameError: name 'x' is not defined")
    assert judge(Unwilling(booting=broken, plain=broken), on_other()).kind == "does not boot"
    assert judge(Unwilling(plain=broken), WANTED).kind == "does not boot"


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (lambda each: replace(each, not_played={"pause": "this SGLang has no pause"}), "pause was not played"),
        (lambda each: replace(each, not_checked={"kv_pages": "this SGLang has no free list"}), "was not checked"),
        (lambda each: replace(each, no_subject={"kv_pages": "pages"}), "kv_pages was not checked: pages"),
    ],
)
@pytest.mark.parametrize("violation", [None, STUCK])
def test_a_run_that_left_something_out_does_not_say_that_it_does_not_show(
    outcome: Callable[[Outcome], Outcome], told: str, violation: Violation | None
):
    verdict = judge(Unwilling(says(violation), outcome=outcome), WANTED)
    assert verdict.kind == "cannot be expressed" and told in verdict.reason


def test_what_was_left_out_does_not_matter_where_it_shows():
    left_out = lambda each: replace(each, not_played={"pause": "this SGLang has no pause"})  # noqa: E731
    assert judge(Unwilling(says(leak()), outcome=left_out), WANTED).kind == "shows"


def test_a_script_that_the_engine_cannot_play_cannot_be_expressed():
    verdict = judge(Unwilling(running=NotPlayed("the script could not be played: KeyError: 'r0'")), WANTED)
    assert verdict.kind == "cannot be expressed"


def test_one_death_of_a_process_is_forgiven_and_two_are_trouble():
    died = EngineError("the configuration process died at a job\nKilled")
    once = Unwilling(says(leak()), running=[died])
    assert judge(once, WANTED).kind == "shows" and once.restarts == 1
    verdict = judge(Unwilling(running=died), WANTED)
    assert verdict == Verdict("trouble", "the configuration process died at a job: Killed")
    assert judge(Unwilling(says(leak()), plain=[died]), WANTED).kind == "shows"
    assert judge(Unwilling(plain=died), WANTED).kind == "does not boot"


def test_an_invariant_that_is_checked_in_part_is_said():
    coarse = lambda each: replace(each, coarse={"kv_pages": "sums alone, the tree is compiled"})  # noqa: E731
    verdict = judge(Unwilling(outcome=coarse), WANTED)
    assert verdict.kind == "does not show" and "checked in part: sums alone" in verdict.reason


# -- what a file asks for --------------------------------------------------------------------------------------


def test_a_finding_file_asks_for_its_signature_as_often_as_it_is_flaky(tmp_path: Path):
    finding = Finding(LEAKED, SCRIPT, leak(), "0.0.fake", reproduced=4, tried=5)
    save_finding(finding, tmp_path / "finding.json")
    assert wanted_in(load(tmp_path / "finding.json")) == Wanted(SCRIPT, LEAKED, runs=3)
    assert wanted_in(load(tmp_path / "finding.json"), runs=7).runs == 7


def test_an_emitted_test_asks_for_what_it_lists_too(tmp_path: Path):
    finding = Finding(LEAKED, SCRIPT, leak(), "0.0.fake", reproduced=4, tried=5)
    path = emit(finding, tmp_path)
    path.write_text(path.read_text() + '\nALSO_SEEN_AS = ("liveness:*",)\n')
    assert wanted_in(load(path)) == Wanted(SCRIPT, LEAKED, also_seen_as=(LEAKED, "liveness:*"), runs=3)


def test_a_known_bug_asks_for_all_that_it_is_known_under():
    for path, bug in shipped().items():
        assert wanted_in(load(path)) == Wanted(bug.script, bug.signature, bug)


def test_a_script_that_does_not_say_what_it_breaks_is_refused(tmp_path: Path):
    path = tmp_path / "script.json"
    path.write_bytes(to_json(SCRIPT))
    with pytest.raises(ScriptError, match=r"script.json: it does not say what it breaks; `sr-fuzz minimise --out"):
        wanted_in(load(path))
