"""What the engine without a tokenizer manager does in its place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sr_fuzz.runtime.transport import LocalTransport
from sr_fuzz.script.errors import RequestRefused, UnsupportedVersion
from sr_fuzz.sglang_api import messages


class Message:
    def __init__(self, rid: str, input_text: str | None, priority: int = 0) -> None:
        self.rid, self.input_text, self.priority = rid, input_text, priority


@pytest.fixture
def transport() -> tuple[LocalTransport, list]:
    sent: list = []
    proxy = SimpleNamespace(put=sent.append, on_step=None)
    return LocalTransport(proxy, SimpleNamespace(streams={})), sent


def test_a_value_that_sglang_refuses_is_refused_as_by_the_http_server(transport, monkeypatch):
    """It is the user's mistake and no failure of the scheduler, which never receives the value."""

    def refuse(**fields: object) -> None:
        raise ValueError("min_new_tokens=12 is unavailable")

    monkeypatch.setattr(messages, "generate_message", refuse)
    local, sent = transport
    with pytest.raises(RequestRefused, match="'r0' was refused before it reached the scheduler: min_new") as refused:
        local.generate(rid="r0", input_ids=[1], sampling={})
    assert refused.value.status == 400 and sent == []


def test_a_field_that_this_sglang_lacks_is_named():
    made = messages._made(Message, {"rid": "r0", "priority": 3})
    assert (made.rid, made.input_text, made.priority) == ("r0", None, 3)
    with pytest.raises(UnsupportedVersion, match="this SGLang's Message has no lora_id, lora_path"):
        messages._made(Message, {"rid": "r0", "lora_path": "l1", "lora_id": "l1"})
