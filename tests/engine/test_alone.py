"""Comparing a request with the same request alone on SGLang's scheduler, as if the oracle model were a real model."""

from __future__ import annotations

from itertools import islice

import pytest

from sr_fuzz.engine.around.independence import AloneEngine
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.faults.catalogue import FAULTS
from sr_fuzz.oracle.function import continuation, prompt_tokens
from sr_fuzz.script import Abort, Continue, EngineConfig, Pause, Prompt, Script, StartReq, Step
from tests.faults.triggers import SCRIPTS

CROWDED = EngineConfig(max_total_tokens=64, schedule_conservativeness=0.03)


class WithoutOracle(WrappedEngine):
    """Checks only what is checked where a real model runs."""

    def run(self, script, *, invariants=None, limit_s=None):
        return self._engine.run(script, invariants=["streams"], limit_s=limit_s)


def test_retractions_pauses_and_shared_prefixes_change_nobodys_output(sr_engine):
    requests = tuple(StartReq(f"r{i}", Prompt(i % 2, 10 + i, i % 3), 20 + i) for i in range(6))
    script = Script(CROWDED, (*requests, Step(12), Pause(), Continue(), Step(9), Abort("r3"), Step(3)))
    outcome = AloneEngine(WithoutOracle(sr_engine)).run(script)
    assert outcome.ok, outcome.report()
    assert outcome.checks["schedule_dependent_output"] == 5
    assert outcome.outputs.keys() == {"r0", "r1", "r2", "r4", "r5"}


def test_an_outcome_has_the_whole_output_of_each_request_that_ended_by_itself(sr_engine):
    long, short = StartReq("r1", Prompt(1, 9), 50), StartReq("r0", Prompt(0, 20), 6, ignore_eos=True)
    outcome = sr_engine.run(Script(EngineConfig(), (short, long, Step(9), Abort("r1"))))
    assert outcome.ok, outcome.report()
    output = continuation(prompt_tokens(Prompt(0, 20), "r0"))
    assert outcome.outputs == {"r0": tuple(islice(output, 6))}


@pytest.mark.parametrize("name", ["wrong_page", "missed_stop"])
def test_a_seeded_fault_shows_without_the_oracle(sr_engine, name):
    """One fault reads another request's KV, the other runs past the stop token, both only with other requests or after
    a pause."""
    with AloneEngine(WithoutOracle(sr_engine)).with_faults(FAULTS[name].path) as engine:
        outcome = engine.run(SCRIPTS[name])
    assert outcome.violation is not None, "the fault was not seen"
    assert outcome.violation.invariant == "schedule_dependent_output"
    assert "got another output than alone" in outcome.violation.message
