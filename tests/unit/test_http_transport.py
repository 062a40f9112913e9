"""Over HTTP a script's calls reach the scheduler in order, and a call that cannot arrive does not block the engine."""

from __future__ import annotations

import pickle

import pytest
import zmq
from fake_tokenizer import (
    LONGEST,
    WAIT_S,
    CloseSessionReqInput,
    ContinueGenerationReqInput,
    Engine,
    FakeServer,
    FlushCacheReqInput,
    PauseGenerationReqInput,
    TokenizedGenerateReqInput,
)
from local_server import serving

from sr_fuzz.runtime import http_patience
from sr_fuzz.runtime.http_poster import BackgroundHttpPoster
from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy
from sr_fuzz.script.errors import EngineError, RequestRefused


@pytest.fixture
def engine():
    context = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    pull.bind("inproc://tokenizer")
    push.connect("inproc://tokenizer")
    server = FakeServer(push)
    poster = BackgroundHttpPoster()
    with serving(server.handlers, setup=server.setup) as url:
        yield Engine(server, ScriptedTokenizerRecvProxy(underlying=pull, decode=pickle.loads), poster, url)
        poster.reset(cancel_open=True)
        poster.close()
    context.destroy(linger=0)


def _finish(engine, *rids):
    engine.server.answer(*rids)
    for rid in rids:
        assert engine.transport.responses[rid].wait(WAIT_S)


# -- order ---------------------------------------------------------------------------------------------------------


def test_calls_of_one_step_arrive_in_it_in_their_order(engine):
    engine.send("a.")
    engine.send("b.")
    engine.transport.abort("a.")
    engine.transport.flush_cache()
    engine.transport.pause("in_place")
    engine.transport.continue_()
    engine.send("c.")
    engine.transport.abort("", abort_all=True)
    wanted = ["a.", "b.", "abort a.", "flush", "pause in_place", "continue", "c.", "abort all"]
    assert engine.step() == wanted
    assert engine.step() == []


def test_a_request_goes_out_as_it_was_asked_for(engine):
    engine.transport = engine.new_transport(default_dp_rank=1)
    engine.transport.generate(rid="a.", input_ids=(5, 6), sampling={"max_new_tokens": 1}, priority=3)
    engine.transport.generate(rid="b.", input_ids=[7], sampling={}, routed_dp_rank=0)
    engine.transport.continue_(torch_empty_cache=True)
    default = {"rid": "a.", "input_ids": [5, 6], "sampling_params": {"max_new_tokens": 1}, "stream": True}
    assert engine.server.bodies == [
        ("/generate", {**default, "priority": 3, "routed_dp_rank": 1}),
        ("/generate", {"rid": "b.", "input_ids": [7], "sampling_params": {}, "stream": True, "routed_dp_rank": 0}),
        ("/continue_generation", {"torch_empty_cache": True}),
    ]


def test_the_answer_of_each_request_is_kept_until_the_next_script(engine):
    engine.send("a.")
    engine.step()
    assert not engine.transport.responses["a."].done
    _finish(engine, "a.")
    assert engine.transport.responses["a."].events == [{"rid": "a."}]
    engine.transport.reset()
    assert engine.transport.responses == {}


# -- calls that the server does not pass on --------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    """A transport that asks soon whether the server answers anything else."""
    monkeypatch.setattr(http_patience, "SLOW_S", 0.02)
    monkeypatch.setattr(http_patience, "_PROBE_PAUSE_S", 0.01)


CALLS = {
    TokenizedGenerateReqInput: lambda engine: engine.send("a."),
    PauseGenerationReqInput: lambda engine: engine.transport.pause("retract"),
    ContinueGenerationReqInput: lambda engine: engine.transport.continue_(),
    FlushCacheReqInput: lambda engine: engine.transport.flush_cache(),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "kind", [TokenizedGenerateReqInput, FlushCacheReqInput], ids=["a request", "a call that waits for its reply"]
)
def test_a_call_that_is_not_passed_on_is_told_from_a_slow_one_and_waits_with_all_later_ones(engine, kind):
    engine.server.withheld = kind
    CALLS[kind](engine)
    engine.transport.pause("in_place")
    engine.transport.continue_()
    held_up, *later = engine.transport.put_off
    assert later == ["pause in mode in_place", "continue"]
    assert held_up in ("generate request 'a.'", "FlushCacheReqInput")
    assert [engine.step() for _ in range(3)] == [[], [], []]
    assert len(engine.transport.put_off) == 3
    assert engine.transport.settle(WAIT_S).startswith("3 calls were put off")


@pytest.mark.usefixtures("hasty")
def test_a_request_that_comes_after_all_is_taken_up_with_what_waits_behind_it(engine):
    engine.server.withheld = TokenizedGenerateReqInput
    engine.send("a.")
    engine.send("b.")
    assert engine.step() == []
    assert engine.transport.put_off == ["generate request 'a.'", "generate b."]
    engine.server.withheld = None
    engine.server.send(TokenizedGenerateReqInput(rid="a.", sampling_params={}))
    assert engine.step() == ["a."]  # taken by the scheduler before the transport looks again
    assert engine.transport.put_off == ["1 on the way"]
    assert engine.step() == ["b."]
    assert engine.transport.put_off == []
    assert set(engine.transport.responses) == {"a.", "b."}


@pytest.mark.usefixtures("hasty")
def test_a_request_held_back_that_the_server_forgets_is_held_up_and_the_others_wait_for_it(engine):
    engine.transport.pause("in_place")
    engine.send("a.")
    engine.send("b.")
    engine.server.withheld = TokenizedGenerateReqInput
    engine.transport.continue_()
    engine.transport.flush_cache()
    assert engine.transport.put_off == ["generate request 'a.'", "flush"]
    assert not engine.transport.paused
    assert engine.step() == ["pause in_place", "continue"]
    engine.server.withheld = None
    for rid in ("b.", "a."):
        engine.server.send(TokenizedGenerateReqInput(rid=rid, sampling_params={}))
    assert engine.step() == ["b.", "a."]
    assert engine.step() == ["flush"]
    assert set(engine.transport.responses) == {"a.", "b."}


@pytest.mark.parametrize("kind", [PauseGenerationReqInput, ContinueGenerationReqInput])
def test_a_call_that_is_answered_without_being_passed_on_is_an_error_at_once(engine, kind):
    engine.server.withheld = kind
    with pytest.raises(EngineError, match=f"was answered, but no {kind.__name__} reached the scheduler$"):
        CALLS[kind](engine)


def test_a_message_of_a_slow_server_is_waited_for(engine, hasty):
    engine.server.delay_s = 0.5
    engine.send("a.")
    assert set(engine.transport.responses) == {"a."}
    assert engine.step() == ["a."]


def test_a_server_that_answers_nothing_at_all_is_a_time_out_that_says_what_is_missing(engine, hasty):
    engine.transport = engine.new_transport(arrival_timeout_s=0.2)
    engine.server.delay_s = 1.0
    with pytest.raises(TimeoutError, match=r"^no generate request 'a\.' arrived .* 0\.2 s; .* instead: nothing$"):
        engine.send("a.")


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_refused_request_raises_with_the_servers_words(engine):
    with pytest.raises(RequestRefused) as caught:
        engine.send("a.", length=LONGEST + 1)
    assert (caught.value.rid, caught.value.status) == ("a.", 400)
    assert caught.value.text == "HTTP 400: The input is longer than 16 tokens"
    assert engine.transport.refused == {"a.": caught.value.text}
    assert engine.step() == []
    engine.send("b.")
    assert engine.step() == ["b."]


def test_a_second_request_by_the_same_id_is_refused_and_the_first_keeps_its_answer(engine):
    engine.send("a.")
    with pytest.raises(RequestRefused, match="Duplicate request ID"):
        engine.send("a.")
    _finish(engine, "a.")
    assert engine.transport.responses["a."].events == [{"rid": "a."}]


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda transport: transport.pause("retract"), "/pause_generation"),
        (lambda transport: transport.continue_(), "/continue_generation"),
        (lambda transport: transport.flush_cache(), "/flush_cache"),
        (lambda transport: transport.abort("", abort_all=True), "/abort_request"),
    ],
)
def test_a_control_call_that_the_server_refuses_is_an_error_of_the_engine(engine, call, path):
    engine.server.down = True
    with pytest.raises(EngineError, match=f"{path} did not reach the scheduler: HTTP 503: shutting down$"):
        call(engine.transport)


# -- pauses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "word"), [("in_place", "pause in_place"), ("retract", "pause retract"), ("abort", "abort all")]
)
def test_while_paused_requests_are_held_back_until_continue(engine, mode, word):
    engine.transport.pause(mode)
    engine.send("a.")
    engine.send("b.")
    assert engine.transport.held_back == ["a.", "b."]
    assert engine.step() == [word]
    engine.transport.continue_()
    assert engine.transport.held_back == []
    received = engine.step()
    assert received[0] == "continue" and sorted(received[1:]) == ["a.", "b."]
    assert set(engine.transport.responses) == {"a.", "b."}
    engine.send("c.")
    assert engine.step() == ["c."]


def test_a_request_held_back_that_is_then_refused_holds_up_no_other_call(engine):
    engine.transport.pause("in_place")
    engine.send("a.", length=LONGEST + 1)
    engine.send("b.")
    engine.send("b.")
    engine.transport.continue_()
    assert engine.step() == ["pause in_place", "continue", "b."]
    assert engine.transport.refused == {
        "a.": "HTTP 400: The input is longer than 16 tokens",
        "b.": "HTTP 400: Duplicate request ID detected: b.",
    }
    assert set(engine.transport.responses) == {"b."}


def test_a_request_held_back_can_be_aborted(engine):
    engine.transport.pause("in_place")
    engine.send("a.")
    engine.transport.abort("a.")
    assert engine.step() == ["pause in_place", "abort a."]


def test_a_new_script_remembers_that_the_server_is_paused(engine):
    engine.transport.pause("in_place")
    engine.transport.reset()
    engine.send("a.")
    assert engine.transport.held_back == ["a."]


def test_continue_waits_for_the_end_of_a_pause_that_aborts(engine):
    answered = set()
    engine.transport = engine.new_transport(answered=answered.__contains__)
    engine.send("a.")
    engine.transport.pause("abort")
    # None of these may block: the scheduler has to step before the pause can end.
    engine.transport.continue_()
    engine.send("b.")
    engine.transport.pause("in_place")
    assert engine.step()[:2] == ["a.", "abort all"]
    assert set(engine.step()) <= {"abort all"}
    assert "b." not in engine.transport.responses
    answered.add("a.")
    engine.server.answer("a.")
    assert set(engine.step()) <= {"abort all"}  # at its end the step begins in which all messages arrive
    assert [word for word in engine.step() if word != "abort all"] == ["continue", "b.", "pause in_place"]


def test_a_pause_that_aborts_lets_the_engine_step_for_the_samples_of_an_aborted_prefill(engine):
    answered = set()
    engine.transport = engine.new_transport(answered=answered.__contains__)
    engine.send("a.", n=2)
    assert engine.step() == ["prefill of a."]
    engine.transport.pause("abort")
    engine.transport.continue_()
    assert engine.transport.put_off == ["continue"]
    answered.add("prefill of a.")
    engine.server.answer("prefill of a.")
    # The transport waits for the samples, not for the end of the pause.
    assert {"a. 0", "a. 1"} <= {*engine.step(), *engine.step()}
    assert engine.transport.put_off == ["continue"]
    answered.update(("a. 0", "a. 1"))
    engine.server.answer("a. 0", "a. 1")
    engine.step()
    assert [word for word in engine.step() if word != "abort all"] == ["continue"]
    assert engine.transport.put_off == []


def test_a_pause_that_aborts_and_never_ends_puts_off_what_comes_after_it(engine):
    engine.server.leaks = True
    engine.send("a.")
    engine.step()
    _finish(engine, "a.")
    engine.transport.pause("abort")
    engine.transport.continue_()
    for _ in range(3):
        assert set(engine.step()) == {"abort all"}
    assert engine.transport.put_off == ["continue"]


def test_steps_that_change_nothing_wait_for_the_next_abort_of_a_pause_that_aborts(engine):
    """A paused scheduler ends the samples of an aborted prefill only by the abort that the server sends a second later;
    steps without a batch take no time."""
    engine.server.abort_every_s = 0.5
    engine.transport = engine.new_transport(answered=set().__contains__)
    engine.send("a.")
    assert engine.step() == ["a."]
    engine.transport.pause("abort")
    engine.transport.continue_()
    later = [engine.step() for _ in range(1 + http_patience._IDLE_STEPS + 1)]
    assert sum(word == "abort all" for step in later for word in step) >= 2
    assert engine.transport.put_off == ["continue"]


def test_a_refusal_of_a_request_that_was_put_off_is_remembered(engine):
    engine.send("a.")
    engine.transport.pause("abort")
    engine.transport.continue_()
    engine.send("b.", length=LONGEST + 1)
    engine.send("c.")
    _finish(engine, "a.")
    engine.step()
    assert [word for word in engine.step() if word != "abort all"] == ["continue", "c."]
    assert list(engine.transport.refused) == ["b."]


# -- requests for several samples ----------------------------------------------------------------------------------


def test_a_request_for_several_samples_does_not_pass_for_another_one(engine):
    engine.transport.pause("in_place")
    engine.send("a.", n=2)
    engine.send("b.")
    engine.send("c.", n=3)
    engine.transport.continue_()
    assert engine.transport.put_off == ["3 on the way"]
    pause, continued, *received = engine.step()
    assert (pause, continued) == ("pause in_place", "continue")
    assert sorted(received) == ["b.", "prefill of a.", "prefill of c."]
    assert set(engine.transport.responses) == {"b."}


def test_samples_arrive_in_the_step_after_the_answer_of_their_prefill(engine):
    def answered(rid):
        """In the scheduler's first step with the prefill; before that, nobody asks."""
        engine.server.answer(rid)
        return True

    engine.transport = engine.new_transport(answered=answered)
    engine.server.samples_s = 0.1
    engine.send("a.", n=2)
    assert engine.step() == ["prefill of a."]
    assert engine.transport.put_off == ["2 on the way"]
    engine.send("b.", n=3)
    assert engine.step() == ["a. 0", "a. 1", "prefill of b."]


def test_samples_that_are_to_come_are_on_the_way(engine):
    answered = set()
    engine.transport = engine.new_transport(answered=answered.__contains__)
    engine.send("a.", n=2)
    assert engine.step() == ["prefill of a."]
    assert engine.transport.put_off == []
    answered.add("prefill of a.")
    assert engine.transport.put_off == ["samples of a."]


@pytest.mark.usefixtures("hasty")
def test_samples_that_the_server_does_not_send_hold_up_later_calls(engine):
    answered = {"prefill of a."}
    engine.transport = engine.new_transport(answered=answered.__contains__)
    engine.send("a.", n=2)
    engine.server.withheld = TokenizedGenerateReqInput
    engine.server.answer("prefill of a.")
    assert engine.step() == ["prefill of a."]
    engine.transport.flush_cache()
    assert engine.step() == []
    assert engine.transport.put_off == ["sample of 'a.'", "flush"]


# -- aborts --------------------------------------------------------------------------------------------------------


def test_an_abort_of_an_unknown_request_returns_and_is_noted(engine):
    engine.transport.abort("nobody.")
    engine.send("a.")
    engine.transport.abort("a.")
    engine.transport.abort("a.")
    assert engine.step() == ["a.", "abort a."]
    assert engine.transport.not_forwarded == ["nobody.", "a."]


def test_an_abort_that_is_not_awaited_arrives_one_step_later(engine):
    engine.send("a.")
    engine.transport.abort("a.", await_arrival=False)
    engine.transport.abort("", abort_all=True, await_arrival=False)
    engine.transport.abort("nobody.", await_arrival=False)
    engine.send("b.")
    assert engine.step() == ["a.", "b."]
    engine.send("c.")
    assert engine.step() == ["abort a.", "abort all", "c."]


# -- flushes -------------------------------------------------------------------------------------------------------


def test_a_second_flush_arrives_once_the_first_is_answered_and_keeps_its_place(engine):
    engine.transport.flush_cache()
    engine.transport.flush_cache()
    engine.send("a.")
    engine.server.answer_flush()
    assert engine.step() == ["flush"]
    assert engine.step() == ["flush", "a."]


def test_a_flush_in_a_later_step_arrives_at_once_when_the_one_before_is_answered(engine):
    engine.transport.flush_cache()
    engine.server.answer_flush()
    assert engine.step() == ["flush"]
    engine.transport.flush_cache()
    assert engine.step() == ["flush"]


# -- the end of a script -------------------------------------------------------------------------------------------


def test_settling_waits_for_every_answer_and_then_forgets_them(engine):
    engine.send("a.")
    engine.send("b.")
    engine.step()
    engine.server.answer("a.", "b.")
    assert engine.transport.settle(WAIT_S) == ""
    assert [engine.transport.responses[rid].events for rid in ("a.", "b.")] == [[{"rid": "a."}], [{"rid": "b."}]]
    assert engine.poster.exchanges == []


def test_settling_names_the_requests_without_an_answer(engine):
    engine.transport.flush_cache()
    engine.send("a.")
    engine.transport.pause("in_place")
    for number in range(6):
        engine.send(f"b{number}.")
    assert engine.transport.paused
    engine.server.answer_flush()
    assert engine.transport._flush.wait(WAIT_S)
    engine.step()
    assert engine.transport.settle(0.05) == "no HTTP answer within 0.05 s to a., b0., b1., b2., b3. and 2 more"


def test_settling_tells_of_calls_that_never_got_through(engine):
    engine.transport.flush_cache()
    engine.transport.flush_cache()
    assert engine.transport.settle(WAIT_S).startswith("1 calls were put off")


def test_settling_tells_of_a_client_that_lost_its_connection(engine):
    engine.send("a.")
    engine.step()
    engine.server.hang_up("a.")
    assert engine.transport.settle(WAIT_S).startswith(f"POST {engine.url}/generate: ")
    assert engine.transport.settle(WAIT_S) == ""


def test_sessions_are_opened_and_closed_in_the_order_of_the_calls(engine):
    transport = engine.new_transport()
    transport.control("open_session", session_id="s0", streaming=True, timeout=2.0)
    transport.control("close_session", session_id="s0")
    opened, closed = engine.proxy.recv_pyobj(), engine.proxy.recv_pyobj()
    assert (opened.session_id, opened.streaming, opened.timeout) == ("s0", True, 2.0)
    assert isinstance(closed, CloseSessionReqInput) and closed.session_id == "s0"


def test_a_session_that_the_server_does_not_pass_on_holds_up_no_other_call(engine):
    transport = engine.new_transport()
    transport.control("open_session", session_id="s0", streaming=False, timeout=None)
    transport.control("open_session", session_id="s0", streaming=False, timeout=None)
    transport.control("close_session", session_id="s0")
    taken = [type(engine.proxy.recv_pyobj()).__name__ for _ in range(engine.proxy.pending)]
    assert taken == ["OpenSessionReqInput", "CloseSessionReqInput"]
