"""An action, a request field and a control call are registered in one place, from which all other code takes them."""

from __future__ import annotations

import ast
from typing import get_args

import pytest
from sr_fuzz.invariants.control_replies import REPLIES
from sr_fuzz.strategies.actions import SINGLES, SWITCHES, ScriptBuilder
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.draw import first
from sr_fuzz.strategies.scripts import draw_menu, scripts

from sr_fuzz.emit.public_api import NotExpressible, to_public_api
from sr_fuzz.play.interpreter import _SENDERS
from sr_fuzz.play.reach_kinds import KINDS, applies
from sr_fuzz.play.request_fields import embedding_fields, generate_fields
from sr_fuzz.script import (
    Abort,
    Action,
    EngineConfig,
    EvictRadix,
    FlushCache,
    Pause,
    Script,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.text import action_text
from sr_fuzz.sglang_api.messages import CONTROLS
from sr_fuzz.sglang_api.versions import installed_package


class StartLater(StartReq, frozen=True, tag="start_later"):
    """`StartReq` with one more field, as a contributor would add it."""

    top_k: int = -1


@pytest.mark.parametrize("kind", get_args(Action))
def test_every_action_is_exported_played_and_counted(kind):
    assert getattr(__import__("sr_fuzz.script", fromlist=["script"]), kind.__name__) is kind
    assert (kind in _SENDERS) != (kind in (Step, StepUntil))
    tag = kind.__struct_config__.tag
    assert f"action.{tag}" in KINDS
    assert any(applies(f"action.{tag}", config) for config in CONFIG_SETS["all"].values())


def test_what_a_script_may_do_without_can_be_drawn():
    assert set(SWITCHES) <= set(SINGLES) <= {kind.__struct_config__.tag for kind in get_args(Action)}


def test_an_action_is_drawn_and_counted_where_it_does_something():
    drains = EngineConfig(enable_lora=True, lora_drain_wait_threshold=2.0)
    assert applies("action.advance_clock", drains) and not applies("action.advance_clock", EngineConfig())
    treeless = EngineConfig(model="swa", disable_radix_cache=True)
    assert not applies("action.evict_radix", treeless)
    drawn = {type(action) for script in first(scripts([treeless]), seed=1, count=60) for action in script.actions}
    assert EvictRadix not in drawn and {StartReq, Abort, Pause, FlushCache} <= drawn


def test_fields_that_are_at_their_default_are_left_to_sglang():
    assert generate_fields(StartReq("r0")) == {
        "sampling": {"max_new_tokens": 8, "ignore_eos": False},
        "stream": True,
    }
    assert embedding_fields(StartReq("r0")) == {}


def test_every_field_goes_under_its_own_name():
    start = StartReq(
        "r0", max_new_tokens=3, stop_token_ids=(40,), priority=0, return_logprob=True, n=2, lora_path="l1", stream=False
    )
    assert generate_fields(start) == {
        "sampling": {"max_new_tokens": 3, "ignore_eos": False, "stop_token_ids": [40], "n": 2},
        "stream": False,
        "priority": 0,
        "return_logprob": True,
        "logprob_start_len": -1,
        "top_logprobs_num": 0,
        "lora_path": "l1",
    }
    assert embedding_fields(start) == {"lora_path": "l1"}


def test_what_goes_with_logprobs_goes_with_them_only():
    assert "top_logprobs_num" not in generate_fields(StartReq("r0", top_logprobs_num=2))


def test_a_new_field_reaches_the_body_and_the_text_by_itself():
    start = StartLater("r0", top_k=5)
    assert generate_fields(start)["top_k"] == 5
    assert action_text(start).endswith("top_k=5)")


def test_a_new_field_is_not_dropped_on_the_way_to_sglangs_suite():
    same = StartLater("r0")
    assert to_public_api(Script(EngineConfig(), (same,))).actions[0].name == "r0"
    with pytest.raises(NotExpressible, match=r"^actions\[0\] .*: .* starts no request with top_k=5$"):
        to_public_api(Script(EngineConfig(), (StartLater("r0", top_k=5),)))


def test_nor_is_a_session():
    script = Script(EngineConfig(enable_streaming_session=True), (StartReq("r0", session=SessionParams("s0")),))
    with pytest.raises(NotExpressible, match="starts no request with a session$"):
        to_public_api(script)


@pytest.mark.parametrize("call", CONTROLS)
def test_a_control_call_names_messages_of_sglang_and_its_reply_is_watched(call: str):
    source = ast.parse((installed_package() / "srt" / "managers" / "io_struct.py").read_text())
    messages = {node.name for node in source.body if isinstance(node, ast.ClassDef)}
    control = CONTROLS[call]
    assert control.message in messages
    # A close is never answered: its reply in SGLang belongs to another path.
    answer = control.message.replace("Input", "Output")
    answered = answer in messages and answer != control.message
    assert control.reply == (answer if answered else None)
    assert control.reply is None or REPLIES[control.message] == control.reply


def test_every_single_action_is_drawn_somewhere():
    """As a single action, not as a part of a motif."""
    configs = [EngineConfig(), EngineConfig(enable_lora=True, lora_drain_wait_threshold=2.0)]
    for tag, single in SINGLES.items():
        builders = [ScriptBuilder(draw=lambda strategy: bytes(6), config=config) for config in configs]
        assert any(single in draw_menu(builder) for builder in builders), tag
