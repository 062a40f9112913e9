"""Over HTTP a script's calls reach the scheduler in order, and a call that cannot arrive does not block other calls."""

from __future__ import annotations

import pickle

import pytest
import zmq
from fake_tokenizer import LONGEST, WAIT_S, AbortReq, CloseSessionReqInput, Engine, FakeServer
from local_server import serving

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


def test_a_message_that_never_comes_is_a_time_out_that_says_so(engine):
    engine.transport = engine.new_transport(arrival_timeout_s=0.05)
    engine.server.send = lambda message: None
    with pytest.raises(TimeoutError, match=r"^no generate request 'a\.' arrived .* 0\.05 s; .* instead: nothing$"):
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


def test_a_request_held_back_that_is_then_refused_holds_up_nobody(engine):
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


def test_requests_held_back_may_come_in_another_order(engine):
    engine.transport = engine.new_transport(arrival_timeout_s=2)
    engine.transport.pause("in_place")
    engine.transport.generate(rid="a.", input_ids=[1, 2], sampling={"n": 3})
    engine.send("b.")
    engine.transport.continue_()
    assert engine.step() == ["pause in_place", "continue", "b.", "sample of a."]
    assert set(engine.transport.responses) == {"b."}


def test_of_requests_for_several_samples_held_back_some_may_be_refused(engine):
    engine.transport = engine.new_transport(arrival_timeout_s=2)
    engine.transport.pause("in_place")
    for rid, length in (("a.", LONGEST + 1), ("b.", 2), ("c.", LONGEST + 1), ("d.", 2)):
        engine.transport.generate(rid=rid, input_ids=range(length), sampling={"n": 3})
    engine.transport.continue_()
    assert sorted(engine.step()[2:]) == ["sample of b.", "sample of d."]
    assert set(engine.transport.refused) == {"a.", "c."}


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


def test_a_pause_that_aborts_waits_for_every_sample_of_a_request(engine):
    """The scheduler never sees the id of the request itself, so its client's answer decides."""
    engine.transport = engine.new_transport(answered=lambda rid: True, arrival_timeout_s=0.5)
    engine.transport.generate(rid="a.", input_ids=[1, 2], sampling={"n": 3})
    engine.transport.pause("abort")
    engine.transport.continue_()
    assert engine.step()[:2] == ["sample of a.", "abort all"]
    assert set(engine.step()) <= {"abort all"}
    engine.server.answer("a.")
    assert engine.poster.exchanges[0].wait(WAIT_S)
    engine.step()
    assert [word for word in engine.step() if word != "abort all"] == ["continue"]


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


# -- samples -------------------------------------------------------------------------------------------------------


def test_the_end_of_a_script_waits_for_samples_that_the_server_sends_late(engine):
    engine.transport.generate(rid="a.", input_ids=[1, 2], sampling={"n": 3})
    assert engine.transport.await_samples(WAIT_S), "its message is there"
    assert engine.step() == ["sample of a."]
    assert not engine.transport.await_samples(0.05), "the server waits for the scheduler"
    late = AbortReq(rid="sample of a.", abort_all=False)
    engine.server.loop.call_soon_threadsafe(engine.server.loop.call_later, 0.1, engine.server.send, late)
    assert engine.transport.await_samples(WAIT_S)
    assert engine.step() == ["abort sample of a."]
    engine.server.answer("a.")
    assert not engine.transport.await_samples(WAIT_S)


# -- the end of a script -------------------------------------------------------------------------------------------


def test_settling_waits_for_every_answer_and_then_forgets_them(engine):
    engine.send("a.")
    engine.send("b.")
    engine.step()
    engine.server.answer("a.", "b.")
    assert engine.transport.settle(WAIT_S) == ""
    assert [engine.transport.responses[rid].events for rid in ("a.", "b.")] == [[{"rid": "a."}], [{"rid": "b."}]]
    assert engine.poster.exchanges == []


def test_settling_names_who_has_no_answer(engine):
    engine.transport.flush_cache()
    engine.send("a.")
    engine.transport.pause("in_place")
    for number in range(6):
        engine.send(f"b{number}.")
    assert engine.transport.paused
    engine.server.answer_flush()
    assert engine.transport._flush.wait(WAIT_S)
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


def test_a_session_that_the_server_does_not_pass_on_holds_up_nobody(engine):
    transport = engine.new_transport()
    transport.control("open_session", session_id="s0", streaming=False, timeout=None)
    transport.control("open_session", session_id="s0", streaming=False, timeout=None)
    transport.control("close_session", session_id="s0")
    taken = [type(engine.proxy.recv_pyobj()).__name__ for _ in range(engine.proxy.pending)]
    assert taken == ["OpenSessionReqInput", "CloseSessionReqInput"]
