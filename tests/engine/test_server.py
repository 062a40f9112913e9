"""The server engine: SGLang's HTTP server from the outside, its scheduler one step at a time from the inside."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import psutil
import pytest

from sr_fuzz.engine.live.server import ScriptedHttpServer
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import (
    Abort,
    AbortAll,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustRows,
    FlushCache,
    Pause,
    Prompt,
    Release,
    Script,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.errors import EngineError
from tests.engine import script_functions
from tests.engine.test_kept import wait_until
from tests.rules import rule_of

# What a script takes at most that waits for nothing in vain; the limit of a wait alone is a minute.
SOON_S = 30.0
# The configuration of `sr_server`.
CONFIG = EngineConfig(max_total_tokens=2048, max_running_requests=8)

HEALTHY = Script(CONFIG, (StartReq("r0", Prompt(0, 20), 5, ignore_eos=True), Step(3)))

SCRIPTS = {
    "retract": (
        StartReq("r0", Prompt(0, 40), 8),
        StepUntil("r0", "first_decode"),
        Pause("retract"),
        Step(3),
        Continue(),
        StartReq("r1", Prompt(0, 40, 11), 6, return_logprob=True, logprob_start_len=0, top_logprobs_num=2),
        Step(4),
        Abort("r1"),
    ),
    "aborts": (
        StartReq("r0", Prompt(1, 60), 30, ignore_eos=True),
        StartReq("r1", Prompt(2, 9), 30, ignore_eos=True, stream=False),
        Step(2),
        Abort("nobody"),
        Abort("r1", await_arrival=False),
        Step(3),
        AbortAll(),
        StartReq("r2", Prompt(1, 60), 4),
        Step(2),
        FlushCache(),
    ),
    "pressure": (
        StartReq("r0", Prompt(3, 30), 12, priority=None),
        Step(2),
        ExhaustRows(0),
        StartReq("r1", Prompt(4, 20), 5),
        Step(6),
        Release(),
        Step(4),
        EvictRadix(None),
        Pause("in_place"),
        Step(2),
        Continue(),
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_goes_on_the_server_as_on_the_local_engine(sr_server, sr_engine, name):
    """The same batches, step by step, the same pages, the same tokens sent in the same steps; and clients receive
    them."""
    script = Script(CONFIG, SCRIPTS[name])
    there, here = sr_engine.run(script), sr_server.run(script)
    assert here.ok, here.report()
    assert here.trace == there.trace
    assert here.checks["http_answers"] > 0
    assert "http_answers" in there.no_subject


def test_a_request_that_the_server_refuses_is_a_remark_and_no_finding(sr_server):
    outcome = sr_server.run(Script(CONFIG, (StartReq("r0", Prompt(0, 4096), 4), StartReq("r1", Prompt(0, 9), 4))))
    assert outcome.ok, outcome.report()
    assert any("r0 was refused by the HTTP server: HTTP 400" in note for note in outcome.notes)


def test_a_request_sent_while_paused_is_held_back_until_continue(sr_server):
    actions = (Pause("retract"), Step(1), StartReq("r0", Prompt(0, 20), 4), Step(4), Continue(), Step(3))
    outcome = sr_server.run(Script(CONFIG, actions))
    assert outcome.ok, outcome.report()
    ran = [record.step for record in outcome.trace if record.batch]
    assert ran[0] == 6, "it should run in the step of the continue"
    assert not any(record.waiting for record in outcome.trace[:5])


def test_requests_for_several_samples_are_told_from_others_when_a_pause_ends(sr_server):
    """The server sends a request for several samples under an id of its own, and later than one that came after it."""
    samples = StartReq("r0", Prompt(0, 20), 4, n=3)
    others = (StartReq("r1", Prompt(0, 20), 4), StartReq("r2", Prompt(1, 9), 2))
    outcome = sr_server.run(Script(CONFIG, (Pause("retract"), Step(1), samples, *others, Step(1), Continue(), Step(3))))
    assert outcome.ok, outcome.report()
    assert outcome.wall_s < SOON_S


def test_a_pause_that_aborts_lets_the_samples_of_the_prompt_that_it_aborts_run(sr_server):
    """The server sends the samples once their prompt is answered, also by the abort; the pause ends when they are
    answered, too."""
    actions = (StartReq("r0", Prompt(0, 200), 6, n=2), Step(1), Pause("abort"), Step(1), Continue(), Step(2))
    outcome = sr_server.run(Script(CONFIG, actions))
    assert outcome.ok, outcome.report()
    assert outcome.wall_s < SOON_S


def test_samples_of_a_prompt_that_was_aborted_last_are_run_to_their_end(sr_server):
    """The engine is idle for a moment, while the server sends them."""
    actions = (StartReq("r0", Prompt(0, 200), 4, n=2, ignore_eos=True), Step(2), AbortAll())
    outcome = sr_server.run(Script(CONFIG, actions))
    assert outcome.ok, outcome.report()
    assert outcome.reach["finish.length"] == 2


def test_script_functions_report_like_sglangs(sr_server):
    sr_server.execute_script(script_functions.chunked_prefill)
    sr_server.execute_script(script_functions.pause_and_retract_at, args=("mid_decode",))
    with pytest.raises(AssertionError, match="predicate did not hold within 5 steps"):
        sr_server.execute_script(script_functions.wrong_assertion)
    with pytest.raises(EngineError, match="no_such_function"):
        sr_server.execute_script("tests.engine.script_functions:no_such_function")


def test_scripts_run_one_after_the_other_in_one_process(sr_server):
    pid = sr_server.scheduler_pid
    sr_server.execute_script(script_functions.left_paused)
    sr_server.execute_script(script_functions.held_at_the_end)
    sr_server.execute_script(script_functions.core_api)
    assert sr_server.scheduler_pid == pid


def test_a_function_of_the_main_module_is_refused_with_the_reason(sr_server):
    def function(t):
        yield

    function.__module__ = "__main__"
    with pytest.raises(EngineError, match="cannot import it; put it into a module"):
        sr_server.execute_script(function)


@pytest.fixture(scope="module")
def other_server(monkeypatch_module):
    """A server with settings for which tests need no second server: SGLang's warm-up, msgpack between its processes."""
    monkeypatch_module.setenv("SGLANG_USE_PICKLE_IPC", "0")
    with ScriptedHttpServer.start(
        faults=["tests.engine.faulty:broken_answers", "tests.engine.faulty:held_up_in_the_server"],
        max_total_tokens=2048,
        chunked_prefill_size=16,
        max_running_requests=8,
        skip_server_warmup=False,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_what_is_lost_between_scheduler_and_client_is_found(other_server):
    def answered(name: str) -> Outcome:
        return other_server.run(Script(CONFIG, (StartReq(name, Prompt(0, 20), 5, ignore_eos=True), Step(3))))

    outcome = answered("short")
    assert rule_of(outcome) == "http_answers:other_tokens"
    assert "the scheduler sent 5 tokens, its client got 4" in outcome.violation.message
    assert rule_of(answered("other")) == "http_answers:other_end"
    assert rule_of(answered("failed")) == "http_answers:failed"
    assert rule_of(answered("noend")) == "http_answers:no_end"
    assert answered("r0").ok


@pytest.mark.parametrize(
    ("name", "actions", "what"),
    [
        ("lost", (Step(3), StartReq("r1", Prompt(0, 9), 2)), "generate request 'lost.*'"),
        ("leaky", (StepUntil("leaky", "finished"), Pause("abort"), Step(1), Continue()), "continue"),
    ],
    ids=["a request that is never sent", "a pause that never ends"],
)
def test_what_the_server_does_not_pass_on_is_found_within_seconds(other_server, name, actions, what):
    outcome = other_server.run(Script(CONFIG, (StartReq(name, Prompt(0, 20), 5), *actions)))
    violation = outcome.violation
    assert rule_of(outcome) == "http_answers:not_passed_on", outcome.report()
    assert re.search(f"has not passed on `{what}` for 60 steps without a forward, although", violation.message)
    assert outcome.wall_s < SOON_S


def test_a_killed_scheduler_is_reported_at_once_and_shutting_down_leaves_nothing(other_server):
    assert other_server.run(HEALTHY).ok  # on a server that is alive, whatever the tests before have left
    pid, folder = other_server.scheduler_pid, other_server.folder
    family = psutil.Process(pid).parent().children(recursive=True)
    assert len(family) >= 2
    killed_at = []

    def kill():
        killed_at.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(0.5, kill)
    timer.start()
    # A signal from outside says nothing about SGLang.
    with pytest.raises(EngineError, match="ended from outside by SIGKILL"):
        other_server.outcome_of("tests.engine.script_functions:step_for_ever", timeout_s=60)
    seen_after = time.monotonic() - killed_at[0]
    assert seen_after < 30, "the limit of the script is what ended it"
    assert other_server.is_dead

    other_server.shutdown()
    assert not folder.exists()
    assert wait_until(lambda: not any(process.is_running() for process in family))
    with pytest.raises(EngineError, match="closed"):
        other_server.execute_script(script_functions.chunked_prefill)
