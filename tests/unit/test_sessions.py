"""Sessions as data and as a client knows them; several answers to one request on the local engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sr_fuzz.emit.public_api import NotExpressible, to_public_api
from sr_fuzz.emit.pytest_repro import to_source
from sr_fuzz.runtime.recorder import OutputRecorder, Stream
from sr_fuzz.runtime.recv_proxy import LocalRecvProxy
from sr_fuzz.runtime.transport import LocalTransport
from sr_fuzz.script import (
    CloseSession,
    EngineConfig,
    OpenSession,
    Prompt,
    Script,
    ScriptError,
    SessionParams,
    StartReq,
    Step,
    from_json,
    to_json,
    validate,
)  # fmt: skip
from sr_fuzz.script.text import action_text
from sr_fuzz.sglang_api.incoming import Received
from sr_fuzz.sglang_api.outputs import Delta
from sr_fuzz.shrink.edits import State, optional_fields, rename, without_session
from sr_fuzz.view.sessions import Ledger

STREAMING = EngineConfig(enable_streaming_session=True)


# -- scripts ---------------------------------------------------------------------------------------------------


def test_a_session_and_its_requests_survive_a_file() -> None:
    script = Script(
        STREAMING,
        (
            OpenSession("s0", streaming=True, timeout=2.0),
            StartReq("r0", session=SessionParams("s0")),
            StartReq("r1", session=SessionParams("s0", rid="r0", offset=3, replace=True)),
            CloseSession("s0"),
        ),
    )
    assert from_json(to_json(script)) == script
    assert [action_text(action) for action in script.actions] == [
        "open_session(s0, streaming=True, timeout=2.0)",
        "r0 = start_req(0:8, new=8, session=s0)",
        "r1 = start_req(0:8, new=8, session=s0(rid=r0, offset=3, replace))",
        "close_session(s0)",
    ]


REFUSED = {
    "streaming where the server has it off": (
        Script(EngineConfig(), (OpenSession("s0", streaming=True),)),
        "actions[0].streaming: true needs config.enable_streaming_session, which is false: the server refuses it",
    ),
    "a session named as a request": (
        Script(EngineConfig(), (StartReq("r0"), OpenSession("r0"))),
        "actions[1].name: r0 is a request of this script; a session needs another name",
    ),
    "several answers in a session": (
        Script(EngineConfig(), (StartReq("r0", session=SessionParams("s0"), n=2),)),
        "actions[0].n: expected 1, since the request belongs to a session, got 2",
    ),
    "an embedding in a session": (
        Script(EngineConfig(is_embedding=True), (StartReq("r0", session=SessionParams("s0")),)),
        "actions[0].session: expected null, since config.is_embedding is true, got an object",
    ),
    "several embeddings": (
        Script(EngineConfig(is_embedding=True), (StartReq("r0", n=2),)),
        "actions[0].n: expected 1, since config.is_embedding is true, got 2",
    ),
}


@pytest.mark.parametrize(("script", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused(script: Script, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        validate(script)
    assert str(caught.value) == f"script: {message}"


def test_a_malformed_session_is_named_in_one_line() -> None:
    def refusal(session: str) -> str:
        with pytest.raises(ScriptError) as caught:
            from_json(
                '{"config": {}, "actions": [{"action": "start_req", "name": "r0", "session": ' + session + "}]}",
                source="a.json",
            )
        return str(caught.value)

    assert refusal('{"id": 3}').startswith("a.json: actions[0].session.id: expected a name")
    assert refusal("7").startswith("a.json: actions[0].session: expected an object with the fields id, rid")
    assert "unknown field `name`" in refusal('{"id": "s0", "name": 1}')


def _state() -> State:
    actions = (
        OpenSession("s0"),
        StartReq("r0", session=SessionParams("s0")),
        OpenSession("s1"),
        StartReq("r1", session=SessionParams("s1", rid="r0")),
        Step(2),
        CloseSession("s0"),
    )
    return State(EngineConfig(), dict(enumerate(actions)))


def test_dropping_a_session_drops_its_requests_and_its_end() -> None:
    left = without_session(_state(), "s0")(_state()).script
    assert [getattr(action, "name", None) for action in left.actions] == ["s1", "r1", None]


def test_renaming_reaches_the_names_within_a_session() -> None:
    renamed = rename({"r0": "r5", "r1": "r6", "s0": "s8", "s1": "s9"})(_state()).script
    assert renamed.actions[3] == StartReq("r6", session=SessionParams("s9", rid="r5"))
    assert renamed.actions[5] == CloseSession("s8")


@pytest.mark.parametrize(
    "script",
    [
        Script(EngineConfig(), (OpenSession("s0"),)),
        Script(EngineConfig(), (StartReq("r0", session=SessionParams("s0")),)),
        Script(EngineConfig(), (StartReq("r0", n=2),)),
        Script(EngineConfig(is_embedding=True), (StartReq("r0"),)),
    ],
    ids=["session", "request of a session", "several answers", "embedding"],
)
def test_sglangs_own_runtime_cannot_say_it(script: Script) -> None:
    with pytest.raises(NotExpressible):
        to_public_api(script)


# -- what a client knows ---------------------------------------------------------------------------------------


class OpenSessionReqInput(SimpleNamespace):
    pass


class CloseSessionReqInput(SimpleNamespace):
    pass


class Client:
    """A ledger, and the streams that it reads."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.cut: dict[str, list[int]] = {}
        self.ledger = Ledger(self.streams.get, lambda rid: self.cut.get(rid, []))

    def opens(self, step: int, *, streaming: bool = True, existing: tuple[str, ...] = ("s0",)) -> None:
        message = OpenSessionReqInput(session_id="s0", streaming=streaming, timeout=None)
        self.ledger.take([Received(message)], step, existing)

    def sends(self, rid: str, tokens: list[int], step: int, /, **params: object) -> list[int]:
        """The whole prompt, as the client knows it."""
        values = {"id": "s0", "rid": None, "offset": None, "replace": None, "drop_previous_output": None, **params}
        message = SimpleNamespace(
            rid=rid, input_ids=tokens, session_params=SimpleNamespace(**values),
            sampling_params=SimpleNamespace(max_new_tokens=8),
        )  # fmt: skip
        self.ledger.take([Received(message)], step, ("s0",))
        return self.ledger.turns[rid].prompt

    def gets(self, rid: str, tokens: list[int], step: int, finish: str = "length") -> None:
        self.streams[rid] = Stream(rid, [Delta(step, tokens, {"type": finish})])


def test_a_turn_continues_the_last_one_that_ran_to_its_end() -> None:
    client = Client()
    client.opens(1)
    assert client.sends("r0", [1, 2], 2) == [1, 2]
    client.gets("r0", [40, 41], 4)
    assert client.sends("r1", [3], 5) == [1, 2, 40, 41, 3]
    client.gets("r1", [50], 7, finish="abort")
    assert client.sends("r2", [4], 8) == [1, 2, 40, 41, 4]


def test_what_is_answered_in_the_turn_of_a_message_came_after_it() -> None:
    client = Client()
    client.opens(1)
    client.sends("r0", [1], 2)
    client.gets("r0", [40], 5)
    assert client.sends("r1", [2], 5) == [2]
    assert not client.ledger.turns["r1"].alone


def test_a_plain_session_continues_the_request_it_is_told_to() -> None:
    client = Client()
    client.opens(1, streaming=False)
    client.sends("r0", [1, 2], 2)
    client.gets("r0", [40], 3)
    assert client.sends("r1", [3], 4) == [3]
    assert client.sends("r2", [3], 4, rid="r0") == [1, 2, 40, 3]
    assert client.sends("r3", [3], 4, rid="r0", drop_previous_output=True) == [1, 2, 3]
    assert client.sends("r4", [3], 4, rid="r0", offset=1) == [1, 3]
    assert not client.ledger.replaced
    client.sends("r5", [3], 4, rid="r0", replace=True)
    assert "r1" in client.ledger.replaced


def test_a_request_after_the_close_has_no_session() -> None:
    client = Client()
    client.opens(1)
    client.ledger.take([Received(CloseSessionReqInput(session_id="s0"))], 2, ("s0",))
    client.sends("r0", [1], 3)
    assert not client.ledger.turns["r0"].was_open
    assert client.ledger.open == ["s0"]
    client.ledger.take([], 4, ())
    assert client.ledger.open == [] and client.ledger.vanished is None


def test_a_session_that_goes_by_itself_is_noticed() -> None:
    client = Client()
    client.opens(1)
    client.ledger.take([], 2, ())
    assert client.ledger.vanished == "s0"


# -- several answers -------------------------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch):
    """The transport, what it sends in a step, and how a request ends."""
    monkeypatch.setattr("sr_fuzz.sglang_api.messages.generate_message", lambda **fields: SimpleNamespace(**fields))
    proxy, recorder = LocalRecvProxy(), OutputRecorder()
    transport = LocalTransport(proxy, recorder)

    def turn() -> list[SimpleNamespace]:
        proxy.next_step()
        return [proxy.recv_pyobj() for _ in range(proxy.pending)]

    def end(rid: str, **finish: object) -> None:
        recorder.streams[rid] = Stream(rid, [Delta(1, [], {"type": "length", **finish})])

    return SimpleNamespace(transport=transport, turn=turn, end=end)


def test_several_answers_are_asked_for_once_the_prompt_is_prefilled(local) -> None:
    sampling = {"n": 2, "max_new_tokens": 5}
    local.transport.generate(rid="r0.", input_ids=[1, 2], sampling=sampling, stream=True)
    (first,) = local.turn()
    assert (first.rid, first.sampling, first.stream) == ("r0.p.", {"max_new_tokens": 0}, False)
    assert local.turn() == [] and local.transport.put_off
    local.end("r0.p.")
    copies = local.turn()
    assert [(c.rid, c.input_ids, c.sampling) for c in copies] == [
        ("r0.c0.", [1, 2], {"max_new_tokens": 5}),
        ("r0.c1.", [1, 2], {"max_new_tokens": 5}),
    ]
    assert not local.transport.put_off and local.turn() == []


def test_a_prompt_that_is_refused_gets_no_answers(local) -> None:
    local.transport.generate(rid="r0.", input_ids=[1], sampling={"n": 3}, stream=True)
    local.turn()
    local.end("r0.p.", type="abort", status_code=400)
    assert local.turn() == [] and not local.transport.put_off


def test_what_is_optional_about_several_answers_is_written_out_by_name_and_minimised_away() -> None:
    start = StartReq("r0", n=3)
    assert to_source(Script(EngineConfig(), (start, Step(3)))).splitlines()[3:5] == [
        '        StartReq("r0", n=3),',
        "        Step(3),",
    ]
    assert optional_fields(start) == [("n", 1)]


def test_a_prompt_in_the_script_is_described_as_always() -> None:
    assert action_text(StartReq("r0", Prompt(1, 9), n=3)) == "r0 = start_req(1:9, new=8, n=3)"
