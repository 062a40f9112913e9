"""The receive proxy gives the scheduler the messages of the socket, in order, and lets a script wait for its own."""

from __future__ import annotations

import json
import pickle
import sys
import threading
from types import SimpleNamespace

import pytest
import zmq

from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy

WAIT_S = 20


class TokenizedGenerateReqInput(SimpleNamespace):
    pass


class BatchTokenizedEmbeddingReqInput(SimpleNamespace):
    pass


class AbortReq(SimpleNamespace):
    pass


@pytest.fixture
def sockets():
    context = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    pull.bind("inproc://tokenizer")
    push.connect("inproc://tokenizer")
    yield push, pull
    context.destroy(linger=0)


@pytest.fixture
def push(sockets):
    return sockets[0]


@pytest.fixture
def proxy(sockets):
    return ScriptedTokenizerRecvProxy(underlying=sockets[1], decode=pickle.loads)


def _take_all(proxy):
    messages = []
    while True:
        try:
            messages.append(proxy.recv_pyobj(zmq.NOBLOCK))
        except zmq.ZMQError as error:
            assert error.errno == zmq.EAGAIN
            return messages


def _wait(proxy, wanted, **options):
    return proxy.wait_until_arrived(lambda message: message == wanted, **{"timeout_s": WAIT_S, **options})


def test_messages_come_in_order_and_are_noted_as_taken(proxy, push):
    for number in range(5):
        push.send_pyobj(number)
    assert proxy.pending == 5
    assert _take_all(proxy) == [0, 1, 2, 3, 4]
    assert proxy.taken == [0, 1, 2, 3, 4]
    assert proxy.pending == 0


def test_with_msgpack_the_same_bytes_go_on_and_predicates_get_the_object(sockets):
    push, pull = sockets
    proxy = ScriptedTokenizerRecvProxy(underlying=pull, decode=json.loads)
    push.send(b'{"rid":  "a"}')
    assert proxy.wait_until_arrived(lambda message: message["rid"] == "a", timeout_s=WAIT_S) == {"rid": "a"}
    assert proxy.recv(zmq.NOBLOCK) == b'{"rid":  "a"}'
    assert proxy.taken == [{"rid": "a"}]
    with pytest.raises(zmq.Again):
        proxy.recv(zmq.NOBLOCK)


@pytest.mark.parametrize(
    ("io_struct", "raw"),
    [
        ({}, pickle.dumps(["a"])),
        ({"_USE_PICKLE_IPC": True, "msgpack_decode": json.loads}, pickle.dumps(["a"])),
        ({"_USE_PICKLE_IPC": False, "msgpack_decode": json.loads}, b'["a"]'),
    ],
    ids=["a release without a choice", "pickle chosen", "msgpack chosen"],
)
def test_by_default_messages_are_read_as_sglang_reads_them(sockets, monkeypatch, io_struct, raw):
    managers = SimpleNamespace(io_struct=SimpleNamespace(**io_struct))
    monkeypatch.setitem(sys.modules, "sglang.srt.managers", managers)
    push, pull = sockets
    proxy = ScriptedTokenizerRecvProxy(underlying=pull)
    push.send(raw)
    assert _wait(proxy, ["a"]) == ["a"]


def test_a_message_awaited_stays_due_behind_those_before_it(proxy, push):
    push.send_pyobj("other")
    push.send_pyobj("mine")
    assert _wait(proxy, "mine") == "mine"
    assert _take_all(proxy) == ["other", "mine"]


def test_waiting_lasts_until_the_message_comes(proxy, push):
    looked = threading.Event()

    def send_late():
        looked.wait(WAIT_S)
        push.send_pyobj("mine")

    thread = threading.Thread(target=send_late)
    thread.start()

    def give_up():
        looked.set()  # so the first look has found nothing

    assert _wait(proxy, "mine", give_up=give_up) == "mine"
    thread.join()


def test_what_was_there_before_does_not_count(proxy, push):
    push.send_pyobj("mine")
    assert proxy.pending == 1
    with pytest.raises(TimeoutError):
        _wait(proxy, "mine", timeout_s=0.02)


def test_what_came_since_a_mark_counts(proxy, push):
    push.send_pyobj("before")
    mark = proxy.mark()
    push.send_pyobj("mine")
    assert proxy.pending == 2
    assert _wait(proxy, "mine", since=mark) == "mine"
    assert _wait(proxy, "before", since=mark, give_up=lambda: "enough") is None


def test_what_the_scheduler_has_received_since_a_mark_counts_until_it_is_forgotten(proxy, push):
    mark = proxy.mark()
    push.send_pyobj("mine")
    push.send_pyobj("other")
    assert proxy.not_received == ["mine", "other"]
    assert _take_all(proxy) == ["mine", "other"]
    assert (proxy.not_received, proxy.arrivals(mark)) == ([], ["mine", "other"])
    assert _wait(proxy, "mine", since=mark) == "mine"
    assert proxy.arrivals(proxy.mark()) == []
    proxy.forget()
    assert proxy.arrivals() == []


def test_a_time_out_says_what_arrived_instead(proxy, push):
    with pytest.raises(TimeoutError) as caught:
        _wait(proxy, "mine", timeout_s=0.02, description="abort of 'a.'")
    assert str(caught.value) == (
        "no abort of 'a.' arrived at the scheduler within 0.02 s; what arrived instead: nothing"
    )
    for message in (1, "a", 2.0, [], {}, (), b""):
        push.send_pyobj(message)
    with pytest.raises(TimeoutError, match=r"instead: int, str, float, list, dict and 2 more$"):
        _wait(proxy, "mine", timeout_s=0.02)


def test_giving_up_takes_one_last_look(proxy, push):
    assert _wait(proxy, "mine", give_up=lambda: "refused") is None

    def send_and_give_up():
        push.send_pyobj("mine")
        return "refused"

    assert _wait(proxy, "mine", give_up=send_and_give_up) == "mine"


def test_a_delayed_message_comes_one_step_later_and_before_what_comes_then(proxy, push):
    push.send_pyobj("mine")
    push.send_pyobj("other")
    proxy.delay(_wait(proxy, "mine"))
    assert proxy.pending == 2
    assert _take_all(proxy) == ["other"]
    push.send_pyobj("next step's")
    proxy.next_step()
    assert _take_all(proxy) == ["mine", "next step's"]


def test_a_message_that_was_taken_cannot_be_delayed(proxy, push):
    push.send_pyobj(AbortReq(rid="a"))
    arrived = proxy.wait_until_arrived(lambda message: True, timeout_s=WAIT_S)
    assert len(_take_all(proxy)) == 1
    with pytest.raises(ValueError, match="cannot delay a AbortReq"):
        proxy.delay(arrived)


def test_late_messages_are_due_before_the_steps_own_callback_runs(proxy, push):
    seen = []
    proxy.on_step = lambda: seen.append(_take_all(proxy))
    push.send_pyobj("mine")
    proxy.delay(_wait(proxy, "mine"))
    proxy.next_step()
    assert seen == [["mine"]]


def test_a_receive_that_would_block_is_refused(proxy, push):
    with pytest.raises(RuntimeError, match="recv_pyobj without NOBLOCK"):
        proxy.recv_pyobj()
    with pytest.raises(RuntimeError, match="recv without NOBLOCK"):
        proxy.recv()
    push.send_pyobj(1)
    assert proxy.pending == 1
    assert proxy.recv_pyobj() == 1


def test_work_is_counted_and_control_is_not(proxy, push):
    for message in (TokenizedGenerateReqInput(rid="a"), AbortReq(rid="a"), BatchTokenizedEmbeddingReqInput()):
        push.send_pyobj(message)
    assert len(_take_all(proxy)) == 3
    assert proxy.work_reqs_seen == 2


def test_everything_else_is_the_sockets_own(proxy, sockets):
    assert proxy.getsockopt(zmq.TYPE) == zmq.PULL
    proxy.close()
    assert sockets[1].closed


def test_polling_sees_what_was_received_already(proxy, push):
    assert proxy.poll(0) == 0
    push.send_pyobj(1)
    assert proxy.pending == 1
    assert proxy.poll(0) == zmq.POLLIN


def test_who_stands_aside_hands_on_and_remembers_nothing(proxy, push):
    push.send_pyobj(1)
    assert _take_all(proxy) == [1]
    proxy.stand_aside()
    push.send_pyobj(2)
    assert _take_all(proxy) == [2]
    assert list(proxy.taken) == []
    assert proxy.arrivals() == []
