"""Engine modes that no other test boots: each works as its name says, and reports what is checked less closely."""

from __future__ import annotations

import pytest
from sr_fuzz.strategies.configs import find_configs

from sr_fuzz.script import (
    Abort,
    AdvanceClock,
    Continue,
    EngineConfig,
    EvictRadix,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.versions import is_among


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


def only_on(engine, releases: str) -> None:
    """Skip a test of a feature that other releases of SGLang do not have."""
    if not is_among(engine.sglang_version, releases):
        pytest.skip(f"about SGLang {releases}; this is {engine.sglang_version}")


def test_of_the_rust_tree_it_says_what_it_cannot_see(sr_engine):
    only_on(sr_engine, ">=0.5.19")
    outcome = play(sr_engine, "rust-chunk16", StartReq("r0", Prompt(0, 20)), StartReq("r1", Prompt(0, 30, 4)), Step(4))
    assert set(outcome.coarse) == {"kv_content", "tree_locks"}
    assert outcome.checks["kv_pages"] == outcome.steps


def test_the_prefill_half_ends_each_request_with_its_first_token(sr_engine):
    outcome = play(sr_engine, "prefill-chunk16", *TWO_LONG)
    assert sorted(sent(outcome)) == ["r0 +1 finish:length", "r1 +1 finish:length"]


def test_several_answers_are_awaited_although_the_prefill_half_is_idle_before_they_are_asked_for(sr_engine):
    outcome = play(sr_engine, "prefill-chunk16", StartReq("r0", Prompt(0, 5), 1, n=2))
    assert sorted(sent(outcome)) == [f"r0.{who} +1 finish:length" for who in ("c0", "c1", "p")]


PAUSED = (StartReq("r0", Prompt(0, 8), 20, ignore_eos=True), Step(4), Pause())


@pytest.mark.parametrize("name", ["hicache-back", "mamba-paged4"])
def test_what_needs_more_stand_ins_runs_on_the_server_as_on_the_local_engine(sr_engine, sr_server_engine, name):
    again = (StartReq("r2", Prompt(0, 40), 4), Step(8))
    script = Script(config(name), (*TWO_LONG, Step(40), EvictRadix(), *again))
    outcomes = [engine.run(script) for engine in (sr_engine, sr_server_engine)]
    assert all(outcome.ok for outcome in outcomes), [outcome.report() for outcome in outcomes]
    assert [record.batch for record in outcomes[0].trace] == [record.batch for record in outcomes[1].trace]


@pytest.mark.parametrize("name", ["decode-overlap", "decode-normal"])
@pytest.mark.parametrize("between", [(), (Step(2),)], ids=["in-one-step", "steps-later"])
def test_an_abort_passes_over_what_a_decode_half_holds_back(sr_engine, name, between):
    """SGLang says so where it holds requests back; such an abort does not count as lost."""
    outcome = play(sr_engine, name, *PAUSED, *between, Abort("r0"), Continue())
    assert "finish:length" in next(line for line in sent(outcome) if "finish" in line)


@pytest.mark.parametrize("actions", [
    (*PAUSED, Continue(), Abort("r0")),
    (*PAUSED, Step(2), Continue(), Step(1), Abort("r0")),
    (*PAUSED, Continue(), Step(2), Pause("in_place"), Abort("r0"), Continue()),
], ids=["continued", "continued-before", "paused-in-place"])  # fmt: skip
def test_any_other_abort_must_reach_it(sr_engine, actions):
    script = Script(config("decode-overlap"), actions)
    with sr_engine.with_faults("tests.engine.faulty:deaf_to_aborts") as engine:
        outcome = engine.run(script)
    assert outcome.violation is not None and outcome.violation.rule == "too_many_tokens", outcome.report()


def test_a_tree_that_this_release_does_not_have_is_refused(sr_engine):
    only_on(sr_engine, ">=0.5.19")
    with pytest.raises(EngineError, match="makes no legacy prefix tree"):
        sr_engine.run(Script(config("legacy-chunk16"), (Step(1),)))
