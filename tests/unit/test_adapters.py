"""LoRA adapters in scripts, in the oracle, and on their way to the scheduler."""

from __future__ import annotations

import json
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.cpu.adapter_loading import _Device
from sr_fuzz.emit.public_api import NotExpressible, to_public_api
from sr_fuzz.emit.pytest_repro import to_source
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.settings import engine_kwargs
from sr_fuzz.oracle.adapter_weights import peft_config, weights
from sr_fuzz.oracle.function import all_prompt_tokens, continuation
from sr_fuzz.outcome import Violation, signature
from sr_fuzz.runtime.recorder import OutputRecorder
from sr_fuzz.runtime.recv_proxy import LocalRecvProxy
from sr_fuzz.runtime.transport import LocalTransport
from sr_fuzz.script import EngineConfig, Prompt, Script, ScriptError, StartReq, Step, from_json, to_json, validate
from sr_fuzz.script.adapters import ADAPTERS, adapter_number
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.text import action_text, config_text
from sr_fuzz.shrink.edits import optional_fields
from tests.unit.sampling import sample

WITH = EngineConfig(enable_lora=True, max_loras_per_batch=2)
SCRIPT = Script(WITH, (StartReq("r0", lora_path="l1"), StartReq("r1"), Step(2)))


# -- scripts ---------------------------------------------------------------------------------------------------


def test_an_adapter_survives_being_written_and_read() -> None:
    assert from_json(to_json(SCRIPT)) == SCRIPT
    assert json.loads(to_json(SCRIPT))["actions"][0] == {"action": "start_req", "name": "r0", "lora_path": "l1"}


def test_an_adapter_is_in_the_text_and_in_the_source_of_an_emitted_test() -> None:
    assert action_text(SCRIPT.actions[0]) == "r0 = start_req(0:8, new=8, lora_path=l1)"
    assert config_text(WITH) == "enable_lora=True max_loras_per_batch=2"
    source = to_source(SCRIPT)
    assert 'StartReq("r0", lora_path="l1"),' in source and "enable_lora=True, max_loras_per_batch=2" in source


def test_an_adapter_is_minimised_away_where_it_does_not_matter() -> None:
    assert optional_fields(SCRIPT.actions[0]) == [("lora_path", None)]


def test_a_finding_with_adapters_is_another_one_than_without() -> None:
    violation = Violation("liveness", "stuck_waiting", "", 1, "step")
    assert signature(violation, WITH) == signature(violation, EngineConfig()) + "+lora"


REFUSED = {
    "no such adapter": (
        {"enable_lora": True},
        {"lora_path": "l9"},
        'actions[0].lora_path: expected one of l0, l1, l2, l3, or null, got "l9"',
    ),
    "no adapters": (
        {}, {"lora_path": "l0"}, "actions[0].lora_path: expected null, since config.enable_lora is false, got l0"
    ),
    "a limit without adapters": (
        {"max_loras_per_batch": 2}, {}, "config.max_loras_per_batch: needs enable_lora, which is false"
    ),
    "loading without adapters": (
        {"enable_lora_overlap_loading": True},
        {},
        "config.enable_lora_overlap_loading: needs enable_lora, which is false",
    ),
    "loading into one slot": (
        {"enable_lora": True, "enable_lora_overlap_loading": True, "max_loras_per_batch": 1},
        {},
        "config.max_loras_per_batch: expected 2 or more, since enable_lora_overlap_loading is true, got 1",
    ),
    "another cache": (
        {"enable_lora": True, "model": "mamba"},
        {},
        "config.enable_lora: the oracle has adapters where config.model is dense or swa, got mamba",
    ),
    "streaming sessions": (
        {"enable_lora": True, "enable_streaming_session": True},
        {},
        "config.enable_lora: cannot be with enable_streaming_session",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "fields", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused_in_one_line(config: dict[str, Any], fields: dict[str, Any], message: str):
    data = {"config": config, "actions": [{"action": "start_req", "name": "r0", **fields}]}
    with pytest.raises(ScriptError) as caught:
        from_json(json.dumps(data), source="a.json")
    assert str(caught.value) == f"a.json: {message}"


# -- the oracle ------------------------------------------------------------------------------------------------


def test_each_adapter_gives_another_output_and_none_the_plain_one() -> None:
    prompt = [7, 9, 40, 3]
    outputs = [list(islice(continuation(prompt, adapter=adapter), 12)) for adapter in (None, *ADAPTERS)]
    assert outputs[0] == list(islice(continuation(prompt), 12))
    assert len({tuple(output) for output in outputs}) == 5


def test_the_next_turn_of_a_chat_begins_with_what_the_adapter_answered() -> None:
    first = StartReq("r0", Prompt(length=6), 5, lora_path="l2")
    tokens = all_prompt_tokens([first, StartReq("r1", Prompt(length=9, after="r0"), lora_path="l0")])
    assert tokens["r1"] == [*tokens["r0"], *islice(continuation(tokens["r0"], adapter="l2"), 3)]


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_weights_of_an_adapter_give_its_number_with_its_own_scaling_alone(name: str) -> None:
    import torch

    config, tensors = peft_config(name), weights(name, 16)
    down, up = (next(t for key, t in tensors.items() if f"lora_{which}" in key) for which in "AB")
    assert down.shape == (config["r"], 16) and up.shape == (16, config["r"])
    output = config["lora_alpha"] / config["r"] * (up @ down @ torch.eye(16)[0])
    assert output.tolist() == [adapter_number(name)] + [0.0] * 15


def test_neighbours_have_other_ranks() -> None:
    ranks = [peft_config(name)["r"] for name in ADAPTERS]
    assert all(one != other for one, other in zip(ranks, ranks[1:]))


# -- engines ---------------------------------------------------------------------------------------------------


def test_settings_of_adapters_are_passed_on_only_with_them() -> None:
    kwargs = engine_kwargs(WITH)
    assert kwargs["enable_lora"] is True and kwargs["max_loras_per_batch"] == 2
    assert kwargs["lora_backend"] == "torch_native" and "lora_eviction_policy" not in kwargs
    assert not [name for name in engine_kwargs(EngineConfig()) if "lora" in name]


def test_a_real_model_has_no_adapters() -> None:
    with pytest.raises(EngineError, match="enable_lora: the adapters are made for the oracle model"):
        engine_kwargs(WITH, model="some/model")


@pytest.fixture
def local(monkeypatch):
    """A transport with adapters, and what it has sent."""
    monkeypatch.setattr("sr_fuzz.sglang_api.messages.generate_message", lambda **fields: SimpleNamespace(**fields))
    monkeypatch.setattr("sr_fuzz.sglang_api.messages.adapter_fields", lambda name: {"lora_id": name})
    proxy = LocalRecvProxy()

    def sent() -> list[SimpleNamespace]:
        proxy.next_step()
        return [proxy.recv_pyobj() for _ in range(proxy.pending)]

    return SimpleNamespace(transport=LocalTransport(proxy, OutputRecorder(), adapters=ADAPTERS), sent=sent)


def test_a_request_carries_the_id_of_its_adapter(local) -> None:
    local.transport.generate(rid="r0.", input_ids=[1], sampling={}, lora_path="l3")
    local.transport.generate(rid="r1.", input_ids=[1], sampling={})
    with_one, without = local.sent()
    assert with_one.lora_id == "l3" and not hasattr(with_one, "lora_path") and not hasattr(without, "lora_id")


def test_the_prefill_for_several_answers_runs_with_their_adapter(local) -> None:
    local.transport.generate(rid="r0.", input_ids=[1], sampling={"n": 2}, lora_path="l3")
    (prefill,) = local.sent()
    assert prefill.rid == "r0.p." and prefill.lora_id == "l3"


def test_an_adapter_that_is_not_there_is_refused_by_name(local) -> None:
    with pytest.raises(ValueError, match=r"^start_req: no adapter 'x': there are l0, l1, l2, l3$"):
        local.transport.generate(rid="r0.", input_ids=[1], sampling={}, lora_path="x")
    without = LocalTransport(LocalRecvProxy(), OutputRecorder())
    with pytest.raises(ValueError, match=r"^start_req: no adapter 'l0': enable_lora is false$"):
        without.generate(rid="r0.", input_ids=[1], sampling={}, lora_path="l0")


def test_the_server_engine_says_that_it_has_none() -> None:
    engine = ServerEngine()
    with pytest.raises(EngineError, match="^enable_lora=True: the server engine cannot"):
        engine.run(SCRIPT)


def test_sglangs_own_runtime_cannot_play_it() -> None:
    with pytest.raises(NotExpressible, match="^config.enable_lora: "):
        to_public_api(SCRIPT)


def test_a_copy_beside_the_model_is_over_in_the_next_step() -> None:
    step = 4
    device = _Device(lambda: step)
    event = device.Event()
    event.record()
    assert not event.query() and not event.query()
    step += 1
    assert event.query()


# -- strategies ------------------------------------------------------------------------------------------------


def test_scripts_use_every_adapter_where_there_are_any_and_none_elsewhere() -> None:
    drawn = sample(scripts(list(CONFIG_SETS["lora"].values())), 60)
    used = {a.lora_path for script in drawn for a in script.actions if isinstance(a, StartReq)}
    assert used == {None, *ADAPTERS}
    for script in drawn:
        validate(script)
    plain = sample(scripts(list(CONFIG_SETS["default"].values())), 30)
    assert not [a for script in plain for a in script.actions if isinstance(a, StartReq) and a.lora_path]


def test_most_scripts_ask_for_more_adapters_than_fit_into_a_batch() -> None:
    drawn = sample(scripts([CONFIG_SETS["lora"]["lora-chunk16"]]), 60)
    asked = [len({a.lora_path for a in script.actions if isinstance(a, StartReq)}) for script in drawn]
    assert sum(count > 2 for count in asked) > 30
