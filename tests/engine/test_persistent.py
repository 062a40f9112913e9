"""Live schedulers: many scripts in one process, and what happens to the process when one of them breaks something."""

from __future__ import annotations

import time

import psutil
import pytest

from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.script import (
    Abort,
    Continue,
    EngineConfig,
    ExhaustKv,
    FlushCache,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
)
from sr_fuzz.script.errors import EngineError
from sr_fuzz.shrink.confirm import confirm
from tests.engine.test_kept import wait_until

CONFIG = EngineConfig()
HERE = "tests.engine.script_functions"

PLAIN = Script(CONFIG, (StartReq("r0", Prompt(0, 40), 8), StartReq("r1", Prompt(0, 40, 9), 6), Step(5), FlushCache()))
PAUSED = Script(CONFIG, (StartReq("r0", Prompt(0, 40), 8), Step(4), Pause("retract"), Step(2), Continue()))
ABORTED = Script(CONFIG, (StartReq("r0", Prompt(1, 20), 30, ignore_eos=True), Step(6), Abort("r0")))
HOLDING = Script(CONFIG, (ExhaustKv(8), StartReq("r0", Prompt(2, 30), 4), Step(3)))


@pytest.fixture(scope="module")
def engine():
    with PersistentEngine(device="cpu") as engine:
        yield engine


def test_scripts_share_a_process_and_go_as_on_the_local_engine(engine, sr_engine):
    """The steps, batches, pages and outputs are the same, whatever was played before."""
    pids = set()
    for script in (PLAIN, PAUSED, ABORTED, HOLDING, PLAIN):
        here, there = engine.run(script), sr_engine.run(script)
        assert here.ok, here.report()
        assert here.trace == there.trace
        pids.add(engine.holder(CONFIG).ready().pid)
    assert len(pids) == 1


def test_a_long_script_does_not_hang(engine):
    outcome = engine.run(Script(CONFIG, (Step(1000),) * 6), limit_s=2.0)
    assert outcome.ok and outcome.steps > 6000, outcome.report()


def test_a_shuffled_queue_is_the_same_on_every_engine(engine, sr_engine):
    """CPython reseeds its random numbers in each fork, and a live scheduler continues from where a script stopped."""
    config = EngineConfig(schedule_policy="random", max_running_requests=2)
    crowd = Script(config, (*(StartReq(f"r{i}", Prompt(i % 3, 10 + i), 6) for i in range(8)), Step(20)))
    outcomes = [sr_engine.run(crowd), engine.run(crowd), engine.run(crowd)]
    orders = [[step.waiting for step in outcome.trace] for outcome in outcomes]
    assert max(map(len, orders[0])) > 3, "nobody waited"
    assert orders[1:] == orders[:1] * 2


def test_a_fresh_run_has_a_process_of_its_own(engine):
    with pytest.raises(ValueError, match="isolation 'shared'"):
        confirm(PLAIN, "kv_pages:leaked:radix+overlap", engine)
    fresh, pids = engine.fresh(), set()
    for _ in range(2):
        assert fresh.run(PLAIN).ok
        pids.add(engine.holder(CONFIG).ready().pid)
    assert len(pids) == 2


def test_a_script_function_runs_and_its_failure_is_its_own(engine):
    assert engine.execute(f"{HERE}:chunked_prefill", config=CONFIG).ok
    with pytest.raises(AssertionError, match="predicate did not hold within 5 steps"):
        engine.execute(f"{HERE}:wrong_assertion", config=CONFIG)
    assert engine.execute(f"{HERE}:held_at_the_end", config=CONFIG).ok
    assert engine.run(PLAIN).ok


def test_what_cannot_be_emptied_is_replaced(engine):
    """A script function may leave the engine paused, with requests in it; the next script finds it empty."""
    pid = engine.holder(CONFIG).ready().pid
    assert engine.execute(f"{HERE}:left_paused", config=CONFIG).ok
    assert engine.run(PLAIN).ok
    assert engine.holder(CONFIG).ready().pid == pid, "pausing and leaving requests behind is no reason to replace it"
    with pytest.raises(AssertionError, match="lost a row"):
        engine.execute(f"{HERE}:loses_a_row", config=CONFIG)
    assert engine.run(PLAIN).ok
    assert engine.holder(CONFIG).ready().pid != pid


def test_several_ranks_are_refused_with_the_reason(engine, sr_engine):
    for one_process in (engine, sr_engine):
        with pytest.raises(EngineError, match="tp_size=2: several ranks need the server engine"):
            one_process.run(Script(EngineConfig(tp_size=2), ()))


def test_exception_crash_and_hang_are_told_apart_and_the_engine_lives_on():
    with PersistentEngine(device="cpu", faults=["tests.engine.faulty:broken_in_many_ways"]) as engine:
        raised = engine.run(PAUSED).violation
        assert (raised.invariant, raised.rule) == ("exception", "RuntimeError")
        assert "this scheduler cannot pause" in raised.message
        assert raised.location[0].startswith("utils.py:__call__")
        assert 'File "sglang/srt/managers/scheduler.py"' in raised.stack, "no folder of this machine in a report"

        started = time.monotonic()
        crashed = engine.run(ABORTED).violation
        assert (crashed.invariant, crashed.rule) == ("crash", "SIGSEGV")
        assert any("process_input_requests" in place for place in crashed.location)
        assert time.monotonic() - started < 120  # a start is part of it: the previous script ended by an exception

        stuck = engine.run(PLAIN, limit_s=3.0).violation
        assert (stuck.invariant, stuck.rule, stuck.step) == ("hang", "timeout", 6)
        assert "step 6 of the script was not over after 3 s" in stuck.message
        assert 'File "tests/engine/faulty.py"' in stuck.stack


def test_a_violation_that_needs_company_says_so_and_closing_ends_every_process():
    """A user who reads the report must not look for the cause in the script that was played last."""
    with PersistentEngine(device="cpu", faults=["tests.engine.faulty:loses_a_row_in_company"]) as engine:
        one = Script(CONFIG, (StartReq("r0", Prompt(0, 8), 3),))
        assert engine.run(one).ok
        outcome = engine.run(one)
        assert not outcome.ok
        assert any("not alone in a fresh scheduler" in note for note in outcome.notes)
        assert any("start_req" in note for note in outcome.notes)
        assert outcome.faults == {"loses_a_row_in_company": (1, 1)}, "of this script alone, not of the one before"
        pid = engine.holder(CONFIG).ready().pid
        assert psutil.pid_exists(pid)
    assert wait_until(lambda: not psutil.pid_exists(pid))
