"""Comparing a request with the same request alone, on engines whose outputs are a plain function of the script."""

from __future__ import annotations

from collections.abc import Callable

from sr_fuzz.engine.around.independence import AloneEngine
from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.script import Abort, EngineConfig, Prompt, Script, StartReq, Step, script_hash

CONFIG = EngineConfig()
TWO = Script(CONFIG, (StartReq("r0", Prompt(0, 8), 4), StartReq("r1", Prompt(0, 8, 2), 4), Step(9)))


class FakeEngine:
    """Answers each request with the result of ``answer(script, name)``; None for a request that does not run to its
    end."""

    faults = ("some.module:fault",)

    def __init__(self, answer: Callable[[Script, str], tuple[int, ...] | None]) -> None:
        self.answer = answer
        self.played: list[Script] = []

    def run(self, script, *, invariants=None, limit_s=None):
        self.played.append(script)
        outputs = {name: self.answer(script, name) for name in script.names}
        ended = {name: output for name, output in outputs.items() if output is not None}
        return Outcome(script_hash(script), "0.0.fake", steps=12, outputs=ended, checks={"streams": 12})


def alike(script: Script, name: str) -> tuple[int, ...]:
    return (40, 41, 42, 43)


def disturbed_by_company(script: Script, name: str) -> tuple[int, ...]:
    return (40, 41, 42, 43) if len(script.names) == 1 or name == "r0" else (40, 41, 50, 43)


def test_equal_outputs_are_no_violation_and_are_counted():
    outcome = AloneEngine(FakeEngine(alike)).run(TWO)
    assert outcome.ok
    assert outcome.checks == {"streams": 12, "schedule_dependent_output": 2}


def test_a_difference_is_a_violation_that_says_where_and_what():
    outcome = AloneEngine(FakeEngine(disturbed_by_company)).run(TWO)
    assert signature(outcome.violation, CONFIG) == "schedule_dependent_output:differs_from_alone:radix+overlap"
    assert outcome.violation.message == (
        "r1 got another output than alone, from token 2 on: [50 43] of 4 tokens, alone [42 43] of 4"
    )
    assert (outcome.violation.step, outcome.violation.when) == (12, "end")


def test_an_output_that_is_cut_short_is_a_difference():
    engine = AloneEngine(FakeEngine(lambda script, name: (40, 41) if len(script.names) > 1 else (40, 41, 42)))
    assert "from token 2 on: [] of 2 tokens, alone [42] of 3" in engine.run(TWO).violation.message


def test_each_request_runs_alone_once_and_equal_ones_share_it():
    fake = FakeEngine(alike)
    engine = AloneEngine(fake)
    same_prompt = (StartReq("a", Prompt(3, 8), 4), StartReq("b", Prompt(3, 8), 4), StartReq("c", Prompt(3, 8), 5))
    script = Script(CONFIG, same_prompt)
    engine.run(script)
    engine.run(script)
    assert [s.names for s in fake.played] == [("a", "b", "c"), ("a",), ("c",), ("a", "b", "c")]
    # The tail of a prompt depends on the name, and the configuration may matter.
    fake.played.clear()
    engine.run(Script(CONFIG, (StartReq("a", Prompt(3, 8, 2), 4), StartReq("b", Prompt(3, 8, 2), 4))))
    engine.run(Script(EngineConfig(disable_radix_cache=True), same_prompt[:1]))
    assert [s.names for s in fake.played] == [("a", "b"), ("a",), ("b",), ("a",), ("a",)]


def test_a_request_after_another_runs_alone_behind_one_that_never_runs():
    fake = FakeEngine(alike)
    second = StartReq("r1", Prompt(length=12, after="r0"), 4)
    AloneEngine(fake).run(Script(CONFIG, (StartReq("r0", Prompt(0, 8), 4), Step(9), second)))
    assert fake.played[-1].actions == (StartReq("r0", Prompt(0, 8), 4), Abort("r0"), second)


def test_only_requests_that_ran_to_their_end_are_compared():
    aborted = FakeEngine(lambda script, name: None if len(script.names) > 1 else (40,))
    assert AloneEngine(aborted).run(TWO).ok
    assert len(aborted.played) == 1
    refused_alone = FakeEngine(lambda script, name: None if len(script.names) == 1 else (40,))
    assert AloneEngine(refused_alone).run(TWO).ok


def test_a_request_without_new_tokens_is_not_compared():
    fake = FakeEngine(disturbed_by_company)
    assert AloneEngine(fake).run(Script(CONFIG, (StartReq("r0", Prompt(), 0), StartReq("r1", Prompt(), 0)))).ok
    assert len(fake.played) == 1


def test_nothing_is_compared_where_outputs_are_not_asked_for():
    fake = FakeEngine(disturbed_by_company)
    assert AloneEngine(fake).run(TWO, invariants=["memory"]).ok
    assert len(fake.played) == 1
    assert not AloneEngine(fake).run(TWO, invariants=["memory", "output"]).ok


def test_another_violation_is_left_as_it_is():
    class Leaking(FakeEngine):
        def run(self, script, *, invariants=None, limit_s=None):
            return Outcome(script_hash(script), "0.0.fake", Violation("kv_pages", "leaked", "page 5", 3))

    assert AloneEngine(Leaking(alike)).run(TWO).violation.invariant == "kv_pages"


def test_the_rest_is_the_engines_own():
    assert AloneEngine(FakeEngine(alike)).faults == ("some.module:fault",)
