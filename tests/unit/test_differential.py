"""Comparing two runs of a script, on engines that are a plain function."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine as Fake
from msgspec.structs import replace

from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.engine.around.differential import DifferentialEngine, compared
from sr_fuzz.outcome import Outcome, StepRecord, signature
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step, script_hash
from sr_fuzz.shrink.finding_steps import first_seen, reproduce, shrink
from tests.rules import rule_of

CONFIG = EngineConfig()
TWO = Script(CONFIG, (StartReq("r0", Prompt(0, 8), 4), StartReq("r1", Prompt(0, 8, 2), 4), Step(9)))
OUTPUT = (40, 41)


class FakeEngine(Fake):
    """Runs scripts; every run of a script that starts ``restless`` differs from the previous run."""

    def __init__(self, restless: str = "nobody", outputs=lambda script, name: OUTPUT) -> None:
        self.restless, self.outputs = restless, outputs
        super().__init__(lambda script: None)

    def run(self, script, *, invariants=None, limit_s=None):
        self.played.append(script)
        batch = ("r0",) if self.restless in script.names and len(self.played) % 2 else ("r1",)
        trace = (StepRecord(1, mode="extend", batch=("r0", "r1")), StepRecord(2, mode="decode", batch=batch))
        outputs = {name: self.outputs(script, name) for name in script.names}
        return Outcome(script_hash(script), self.sglang_version, steps=2, trace=trace, outputs=outputs)


def test_two_equal_runs_are_no_violation_and_are_counted():
    outcome = DifferentialEngine(FakeEngine()).run(TWO)
    assert outcome.ok
    assert outcome.checks == {"determinism": 1, "schedule_dependent_output": 2}


def test_another_trace_is_a_violation_that_says_where_and_what():
    outcome = DifferentialEngine(FakeEngine("r1")).run(TWO)
    assert signature(outcome.violation, CONFIG) == "determinism:other_trace:radix+overlap"
    assert outcome.violation.message == "two runs of the script differ from step 2 on, in batch: r0 against r1"


def test_a_violation_that_only_the_second_run_shows_is_one_of_determinism():
    class Flaky(FakeEngine):
        def run(self, script, *, invariants=None, limit_s=None):
            outcome = super().run(script)
            violation = DifferentialEngine(FakeEngine("r1")).run(TWO).violation
            return outcome if len(self.played) % 2 else replace(outcome, violation=violation)

    assert rule_of(DifferentialEngine(Flaky()).run(TWO)) == "determinism:other_violation"


def test_another_output_in_the_same_steps_is_a_violation():
    """A trace has the number of tokens that were sent, not the tokens."""
    fake = FakeEngine(outputs=lambda script, name: (40, 41 + len(fake.played)))
    outcome = DifferentialEngine(fake).run(TWO)
    assert rule_of(outcome) == "determinism:other_output"
    assert "r0" in outcome.violation.message


def test_another_number_of_steps_is_another_trace():
    class Shorter(FakeEngine):
        def run(self, script, *, invariants=None, limit_s=None):
            outcome = super().run(script)
            return outcome if len(self.played) % 2 else replace(outcome, steps=3)

    outcome = DifferentialEngine(Shorter()).run(TWO)
    assert rule_of(outcome) == "determinism:other_trace"
    assert outcome.violation.message == "two runs of the script take 2 and 3 steps"


def test_an_output_that_hangs_on_others_is_a_violation():
    fake = FakeEngine(outputs=lambda script, name: OUTPUT if len(script.names) == 1 or name == "r0" else (40, 50))
    assert DifferentialEngine(fake).run(TWO).violation.invariant == "schedule_dependent_output"


def test_only_each_so_many_th_script_is_played_again():
    fake = FakeEngine()
    engine = DifferentialEngine(fake, every=3)
    for _ in range(6):
        engine.run(TWO)
    assert fake.played.count(TWO) == 8


def test_a_difference_is_minimised_although_few_scripts_are_compared():
    engine = DifferentialEngine(FakeEngine("r1"), every=2)
    assert engine.run(TWO).ok
    finding, _ = reproduce(shrink(first_seen(TWO, engine.run(TWO), engine), engine.run), engine)
    assert len(finding.script.actions) == 1
    assert (finding.reproduced, finding.tried) == (5, 5)


def test_the_emitted_test_compares_too(tmp_path):
    engine = DifferentialEngine(FakeEngine("r1"))
    finding, _ = first_seen(TWO, engine.run(TWO), engine)
    source = emit(finding, tmp_path).read_text()
    assert "outcome = DifferentialEngine(sr_engine).run(SCRIPT)" in source
    compile(source, "emitted", "exec")


def test_a_finding_of_two_runs_is_played_on_an_engine_that_compares():
    fake = FakeEngine()
    assert isinstance(compared(fake, "determinism:other_trace:radix+overlap"), DifferentialEngine)
    assert compared(fake, "kv_pages:leaked:radix+overlap") is fake
    assert compared(fake, None) is fake


def test_a_senseless_number_is_refused():
    with pytest.raises(ValueError, match="every: expected 1 or more, got 0"):
        DifferentialEngine(FakeEngine(), every=0)
