"""Engine modes that no other test boots: each does what its name says, and says where it is looked at less closely."""

from __future__ import annotations

import pytest

from sr_fuzz.errors import EngineError
from sr_fuzz.script import AdvanceClock, EngineConfig, Prompt, Script, StartReq, Step, StepUntil
from strategies.configs import find_configs


def config(name: str) -> EngineConfig:
    return find_configs([name])[name]


def play(engine, name, *actions):
    outcome = engine.run(Script(config(name), actions))
    assert outcome.ok, outcome.report()
    return outcome


def sent(outcome) -> list[str]:
    return [line for record in outcome.trace for line in record.sent]


TWO_LONG = tuple(StartReq(f"r{i}", Prompt(i, 40), 30, ignore_eos=True) for i in range(2))


def test_a_waiting_request_times_out_when_the_clock_moves_and_only_then(sr_engine):
    # The waiting time-out is 10 s, and the second prompt does not fit beside the first.
    patient = play(sr_engine, "timeouts-chunk8-normal", *TWO_LONG, Step(4), AdvanceClock(9.0), Step(4))
    assert not any("abort" in line for line in sent(patient))
    outcome = play(sr_engine, "timeouts-chunk8-normal", *TWO_LONG, Step(4), AdvanceClock(11.0), Step(4))
    assert "r1 abort" in sent(outcome)


def test_a_running_request_times_out(sr_engine):
    start = (StartReq("r0", max_new_tokens=40, ignore_eos=True), StepUntil("r0", "first_decode"))
    outcome = play(sr_engine, "timeouts-chunk16", *start, AdvanceClock(61.0), Step(4))
    assert [line for line in sent(outcome) if "finish" in line] == ["r0 +1 finish:abort"]


def test_of_the_rust_tree_it_says_what_it_cannot_see(sr_engine):
    outcome = play(sr_engine, "rust-chunk16", StartReq("r0", Prompt(0, 20)), StartReq("r1", Prompt(0, 30, 4)), Step(4))
    assert set(outcome.coarse) == {"kv_content", "tree_locks"}
    assert outcome.checks["kv_pages"] == outcome.steps


def test_the_prefill_half_ends_each_request_with_its_first_token(sr_engine):
    outcome = play(sr_engine, "prefill-chunk16", *TWO_LONG)
    assert sorted(sent(outcome)) == ["r0 +1 finish:length", "r1 +1 finish:length"]


def test_a_tree_that_this_release_does_not_have_is_refused(sr_engine):
    with pytest.raises(EngineError, match="makes no legacy prefix tree"):
        sr_engine.run(Script(config("legacy-chunk16"), (Step(1),)))
