"""The local engine: the results of a run, and its behaviour when something cannot run."""

from __future__ import annotations

import pytest
from sr_fuzz.invariants import NAMES

from sr_fuzz.oracle.function import continuation, prompt_tokens
from sr_fuzz.script import (
    Abort,
    AbortAll,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    OpenSession,
    Pause,
    Prompt,
    Release,
    Script,
    ScriptError,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.errors import EngineError

CONFIG = EngineConfig()


def play(engine, *actions, config=CONFIG):
    outcome = engine.run(Script(config, actions))
    assert outcome.ok, outcome.report()
    return outcome


def sent(outcome, name):
    """All that was sent for a request, according to the trace."""
    lines = [line for record in outcome.trace for line in record.sent]
    return [line.removeprefix(f"{name} ") for line in lines if line.split()[0] == name]


def test_a_request_runs_to_its_end_and_the_trace_shows_how(sr_engine):
    outcome = play(sr_engine, StartReq("r0", Prompt(0, 40), 3, ignore_eos=True), Step(6))
    modes = [record.mode for record in outcome.trace if record.mode]
    # Releases up to 0.5.21 launch one more decode under overlap, whose result is discarded.
    assert modes[:5] == ["extend", "extend", "extend", "decode", "decode"] and len(modes) <= 6
    assert [record.chunked for record in outcome.trace[:3]] == ["r0", "r0", None]
    assert sent(outcome, "r0") == ["+1", "+1", "+1 finish:length"]
    assert outcome.forwards == len(modes)
    assert set(outcome.checks) | set(outcome.not_checked) | set(outcome.no_subject) == set(NAMES)


def test_waiting_for_a_request_that_never_starts_is_waiting(sr_engine):
    def paused_at(waiting):
        outcome = play(sr_engine, StartReq("r0", Prompt(0, 4), 2), waiting, Pause())
        return [record.step for record in outcome.trace if "pause(retract)" in record.actions]

    assert paused_at(StepUntil("r9", "finished", max_steps=5)) == paused_at(Step(5)) != []


def test_a_stage_is_one_of_the_answer_that_sglang_lets_a_request_have(sr_engine):
    """``max_new_tokens`` is clipped to the pool, which moves the middle of the decode."""
    config = EngineConfig(max_total_tokens=96)
    start = StartReq("r0", Prompt(0, 40), 4096, ignore_eos=True)
    outcome = play(sr_engine, start, StepUntil("r0", "mid_decode", max_steps=100), Abort("r0"), config=config)
    assert outcome.reach["stage.mid_decode"] == 1


def test_the_same_script_gives_the_same_trace(sr_engine):
    script = Script(
        EngineConfig(max_total_tokens=64, schedule_conservativeness=0.03),
        tuple(StartReq(f"r{i}", Prompt(i % 2, 10 + i, 2), 30) for i in range(6)) + (Step(25), Pause(), Continue()),
    )
    first, second = sr_engine.run(script), sr_engine.run(script)
    assert first.trace == second.trace
    assert first.violation == second.violation


def test_memory_pressure_retracts_and_still_everybody_gets_the_right_output(sr_engine):
    config = EngineConfig(max_total_tokens=64, schedule_conservativeness=0.03)
    actions = [StartReq(f"r{i}", Prompt(i, 10), 30) for i in range(6)]
    outcome = play(sr_engine, *actions, Step(60), config=config)
    ran: set[str] = set()
    waited_again: set[str] = set()
    for record in outcome.trace:
        waited_again |= ran & set(record.waiting)
        ran |= set(record.batch)
    assert waited_again, "expected a retraction: a request that ran waits again"


def test_eos_ends_a_request_unless_ignored(sr_engine):
    # The oracle is a pure function, so the test can search for a prompt whose continuation has an early EOS.
    length = next(n for n in range(1, 400) if 2 in _first(n, 12))
    at = _first(length, 12).index(2)
    config = EngineConfig(max_total_tokens=1024)
    stopping = play(sr_engine, StartReq("r0", Prompt(0, length), 20), Step(30), config=config)
    ignoring = play(sr_engine, StartReq("r0", Prompt(0, length), 20, ignore_eos=True), Step(30), config=config)
    assert len(sent(stopping, "r0")) == at + 1
    assert sent(stopping, "r0")[-1].endswith("finish:stop")
    assert len(sent(ignoring, "r0")) == 20


def _first(length, count):
    source = continuation(prompt_tokens(Prompt(0, length), "r0"))
    return [next(source) for _ in range(count)]


def test_pauses_freeze_and_continue_resumes(sr_engine):
    start = StartReq("r0", Prompt(0, 8), 9, ignore_eos=True)
    outcome = play(sr_engine, start, Step(4), Pause("in_place"), Step(3), Continue(), Step(9))
    paused = [record for record in outcome.trace if record.paused]
    assert len(paused) == 3
    assert all(record.mode is None and not record.sent for record in paused)


def test_actions_on_names_that_are_not_there_are_sent_all_the_same(sr_engine):
    play(
        sr_engine,
        Abort("ghost"),
        Step(),
        StartReq("r0", Prompt(0, 8), 4),
        StepUntil("r0", "finished"),
        Abort("r0"),
        Abort("r0", await_arrival=False),
        AbortAll(),
        AbortAll(await_arrival=False),
        Continue(),
        FlushCache(),
        EvictRadix(),
        Step(3),
    )


def test_exhausted_resources_block_and_come_back(sr_engine):
    outcome = play(
        sr_engine,
        StartReq("warm", Prompt(1, 8), 1),
        StepUntil("warm", "finished"),
        Step(),
        ExhaustLockRefs(0),
        ExhaustKv(2),
        StartReq("r0", Prompt(0, 8), 4, ignore_eos=True),
        Step(5),
        Release(),
        Step(8),
        ExhaustRows(1),
        Step(4),
        Release(),
    )
    blocked = [record for record in outcome.trace if "r0" in record.waiting]
    assert len(blocked) >= 4
    assert sent(outcome, "r0")[-1] == "+1 finish:length"
    assert min(record.free_rows for record in outcome.trace) == 1


def test_locks_leave_the_states_that_are_promised_with_rows(sr_engine):
    config = EngineConfig(
        model="mamba", max_mamba_cache_size=15, mamba_radix_cache_strategy="no_buffer", disable_overlap_schedule=True
    )
    cached = [StartReq(f"warm{index}", Prompt(index, 4), 2) for index in range(12)]
    late = [StartReq(f"late{index}", Prompt(20 + index, 4), 8, ignore_eos=True) for index in range(5)]
    outcome = play(sr_engine, *cached, Step(30), ExhaustLockRefs(0), *late, Step(20), Release(), Step(2), config=config)
    running = [set(record.running) for record in outcome.trace]
    assert {request.name for request in late} in running


def test_rows_can_be_exhausted_again_after_a_release(sr_engine):
    play(sr_engine, ExhaustRows(0), Release(), ExhaustRows(0), Step(3), Release(), ExhaustRows(2), Step(2))


def test_a_long_script_does_not_hang(sr_engine):
    """The limit is that of a step, see `tests.unit.test_config_process`: a valid script may have half a million."""
    outcome = sr_engine.run(Script(EngineConfig(), (Step(1000),) * 6), limit_s=2.0)
    assert outcome.ok and outcome.steps > 6000, outcome.report()


def test_requests_that_take_rows_are_not_those_of_the_script(sr_engine):
    """Whatever a request is called, its name is not that of a request that sr_fuzz sends by itself."""
    play(sr_engine, StartReq("ballast0"), StartReq("ballast"), ExhaustRows(0), Step(3), Abort("ballast"), Step(2))


def test_requests_that_take_rows_fit_into_the_context(sr_engine):
    """In a large pool half of it is longer than the context, which the HTTP server refuses."""
    config = EngineConfig(max_total_tokens=65536, max_running_requests=8)
    script = Script(config, (ExhaustRows(7), Step(3), Release(), Step(2)))
    with sr_engine.with_faults("tests.engine.faulty:door_of_the_tokenizer_manager") as engine:
        outcome = engine.run(script)
    assert outcome.ok and outcome.notes == () and outcome.forwards > 0, outcome.report()


def test_a_flush_takes_back_what_was_held(sr_engine):
    outcome = play(
        sr_engine,
        StartReq("warm", Prompt(1, 8), 1),
        StepUntil("warm", "finished"),
        Step(),
        ExhaustLockRefs(0),
        ExhaustKv(0),
        FlushCache(),
        Step(2),
        Release(),
        StartReq("r0", Prompt(0, 100), 4, ignore_eos=True),
        Step(12),
    )
    assert sent(outcome, "r0")[-1] == "+1 finish:length"


def test_a_request_sent_while_paused_is_noted(sr_engine):
    outcome = play(sr_engine, Pause(), Step(2), StartReq("r0", Prompt(0, 8), 2), Step(2), Continue())
    assert len(outcome.notes) == 1 and "while paused" in outcome.notes[0]


def test_invariants_can_be_selected_and_a_wrong_name_is_refused(sr_engine):
    script = Script(CONFIG, (StartReq("r0", Prompt(0, 8), 2), Step(4)))
    assert set(sr_engine.run(script, invariants=["kv_pages"]).checks) == {"kv_pages"}
    of_memory = set(sr_engine.run(script, invariants=["memory"]).checks)
    assert {"kv_pages", "request_rows", "tree_locks"} <= of_memory and "liveness" not in of_memory
    with pytest.raises(EngineError, match="no such invariant or family: nonsense"):
        sr_engine.run(script, invariants=["nonsense"])


def test_an_invariant_that_does_not_apply_says_why(sr_engine):
    config = EngineConfig(disable_radix_cache=True)
    outcome = play(sr_engine, StartReq("r0", Prompt(0, 8), 2), Step(4), config=config)
    assert outcome.no_subject["tree_locks"] == "there is no prefix tree"


def test_an_invalid_script_is_refused_before_anything_runs(sr_engine):
    with pytest.raises(ScriptError, match="unique_tail"):
        sr_engine.run(Script(CONFIG, (StartReq("r0", Prompt(0, 8, 9), 2),)))


def test_a_configuration_that_sglang_refuses_is_one_clear_error(sr_engine):
    # SGLang has priority scheduling with the policies fcfs and lof only.
    config = EngineConfig(enable_priority_scheduling=True, schedule_policy="lpm")
    with pytest.raises(EngineError) as error:
        sr_engine.run(Script(config, (StartReq("r0", Prompt(0, 8), 2), Step(4))))
    assert str(error.value).splitlines()[0].startswith("SGLang did not boot with this configuration:")


def test_a_closed_engine_says_so(sr_engine):
    from sr_fuzz.engine.local.engine import LocalEngine

    engine = LocalEngine(zygote=sr_engine.zygote)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(Script(CONFIG, (Step(),)))


def test_a_zygote_that_is_gone_is_an_engine_error_once():
    from sr_fuzz.engine.local.engine import LocalEngine

    with LocalEngine() as engine:
        engine.zygote._process.kill()
        engine.zygote._process.wait()
        with pytest.raises(EngineError, match="ended from outside by SIGKILL"):
            engine.run(Script(CONFIG, (Step(),)))
        assert engine.run(Script(CONFIG, (Step(),))).ok


def test_a_turn_that_comes_behind_the_pause_that_ends_the_last_one_continues_it(sr_engine):
    """The pause processes the result that ends the first turn; the second turn arrives in the same step."""
    turn = SessionParams("s0")
    first = StartReq("r0", Prompt(0, 5), 3, session=turn)
    actions = (OpenSession("s0", streaming=True), first, Step(3), Pause("retract"))
    config = EngineConfig(disable_radix_cache=True, enable_streaming_session=True)
    outcome = play(sr_engine, *actions, StartReq("r1", Prompt(0, 8), 3, session=turn), config=config)
    assert outcome.outputs.keys() == {"r0", "r1"}


def test_the_end_waits_for_copies_that_come_late(sr_engine):
    """Each of three answers fills the pool, so they come one after the other, long after the script has ended."""
    outcome = play(sr_engine, StartReq("r0", Prompt(0, 19), 100, ignore_eos=True, n=3), Step(2))
    assert outcome.ok, outcome.report()
    assert outcome.steps > 300
