"""The time of a script: waiting for a processor does not count."""

from __future__ import annotations

import os
import time

from sr_fuzz.engine.local import config_process
from sr_fuzz.engine.local.config_process import _kept_waiting_s, _read_until
from sr_fuzz.engine.process_messages import Execute, Run
from sr_fuzz.script import EngineConfig, Script, Step


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
    assert _kept_waiting_s(os.getpid()) >= 0.0
    assert _kept_waiting_s(2**22 + 1) == 0.0


def deadlines(monkeypatch, job: Run | Execute, steps: list[int]) -> list[float]:
    """The deadline as asked once a second while that many steps have been made."""
    clock, made = iter(range(100)), iter(steps)
    monkeypatch.setattr(config_process.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(config_process, "_kept_waiting_s", lambda pid: 0.0)
    alive: list[None] = []
    deadline = config_process._Deadline(job, 1, lambda: next(made), lambda: alive.append(None))
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
