"""The time of a script: waiting for a processor does not count."""

from __future__ import annotations

import os
import time

import pytest

from sr_fuzz.engine import step_limit
from sr_fuzz.engine.crash_outcomes import crashed, hung
from sr_fuzz.engine.live.holder import LiveHolder
from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.local.config_process import _read_until
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.engine.process_messages import Done, Execute, Run
from sr_fuzz.engine.step_limit import StepCounter, kept_waiting_s, step_limit_s
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step


def test_a_deadline_that_moves_on_is_asked_for_again():
    read_end, write_end = os.pipe()
    asked = []

    def deadline() -> float:
        asked.append(None)
        if len(asked) == 1:
            return time.monotonic() + 0.001
        if len(asked) == 2:
            os.write(write_end, b"late")
            os.close(write_end)
        return time.monotonic() + 60.0

    assert _read_until(read_end, deadline) == (b"late", False)
    os.close(read_end)


def test_a_deadline_that_has_passed_ends_the_reading():
    read_end, write_end = os.pipe()
    assert _read_until(read_end, lambda: time.monotonic()) == (b"", True)
    os.close(read_end)
    os.close(write_end)


def test_a_process_that_is_gone_has_not_waited():
    assert kept_waiting_s(os.getpid()) >= 0.0
    assert kept_waiting_s(2**22 + 1) == 0.0


def deadlines(monkeypatch, job: Run | Execute, steps: list[int]) -> list[float]:
    """The deadline as asked once a second while that many steps have been made."""
    clock, made = iter(range(100)), iter(steps)
    monkeypatch.setattr(step_limit.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(step_limit, "kept_waiting_s", lambda pid: 0.0)
    alive: list[None] = []
    deadline = step_limit.Deadline(job, 1, lambda: next(made), lambda: alive.append(None))
    found = [deadline() for _ in steps]
    assert len(alive) == len(set(steps) - {0})
    return found


def test_the_time_of_a_script_is_that_of_a_step(monkeypatch):
    """The script starts at second 0, and makes a step in the seconds 1 and 2; the time is read at each of them."""
    run = Run(Script(EngineConfig(), (Step(1000),)), limit_s=5.0)
    assert deadlines(monkeypatch, run, [1, 2, 2, 2]) == [6.0, 7.0, 7.0, 7.0]


def test_the_time_of_a_script_function_is_that_of_the_whole(monkeypatch):
    execute = Execute("tests.engine.script_functions:endless", limit_s=5.0)
    assert deadlines(monkeypatch, execute, [1, 2, 2, 3]) == [5.0, 5.0, 5.0, 5.0]


def test_the_limit_follows_the_size_of_the_script():
    """A prompt of 4,000 tokens with eight answers is read in one step, and takes its time."""
    short = Script(EngineConfig(), (StartReq("r0", Prompt(0, 100)), Step(1000)))
    long = Script(EngineConfig(), (StartReq("r0", Prompt(0, 4000), n=8, return_logprob=True), Step(1)))
    assert step_limit_s(short, 20.0) == pytest.approx(20.2)
    assert step_limit_s(long, 20.0) == pytest.approx(84.0)


@pytest.mark.parametrize("kind", [LocalEngine, PersistentEngine, ServerEngine])
def test_every_engine_goes_by_it_unless_a_run_has_its_own(kind, monkeypatch):
    jobs: list[Run] = []

    def submit(self, *arguments) -> Done:
        jobs.append(arguments[-1])
        return Done(Outcome("", ""))

    monkeypatch.setattr(LocalEngine, "_submit", submit)
    monkeypatch.setattr(LiveHolder, "submit", submit)
    script = Script(EngineConfig(), (StartReq("r0", Prompt(0, 2500), n=2),))
    engine = kind(limit_s=10.0)
    engine.run(script)
    engine.run(script, limit_s=7.0)
    assert [job.limit_s for job in jobs] == [15.0, 7.0]


def test_the_steps_are_counted_where_another_process_can_see_them(tmp_path):
    here, there = StepCounter(tmp_path / "steps"), StepCounter(tmp_path / "steps")
    assert there.get() == 0
    here.set(7)
    assert there.get() == 7


def test_a_hang_and_a_crash_name_the_step():
    run = Run(Script(EngineConfig(), (Step(1000),)), limit_s=5.0)
    execute = Execute("tests.engine.script_functions:endless", limit_s=5.0)
    stuck = hung(run, "", sglang_version="0.5.23", step=7, wall_s=9.0).outcome
    assert stuck.violation.step == 7 and stuck.violation.message == "step 7 of the script was not over after 5 s"
    assert "hang: timeout at step 7" in stuck.report()
    stuck = hung(execute, "", sglang_version="0.5.23", step=7, wall_s=9.0).outcome
    assert stuck.violation.message == "the script function was not over after 5 s, in step 7"
    died = crashed(run, "SIGSEGV", "it died", "", sglang_version="0.5.23", step=7, wall_s=9.0).outcome
    assert died.violation.step == 7
