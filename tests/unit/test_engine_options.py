"""The engine that the options select, and the effect of several ranks on a script."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engine import FakeEngine, leak
from hypothesis.strategies import just

from sr_fuzz.engine.around.ranks import RankedEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.options import EngineOptions, choose
from sr_fuzz.engine.parallel_ranks import Ranks
from sr_fuzz.engine.settings import engine_kwargs
from sr_fuzz.script import EngineConfig, Script, StartReq, Step
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.server_args import device_settings
from sr_fuzz.testing.properties import PropertyChecker

SCRIPT = Script(EngineConfig(page_size=4), (StartReq("r0"), Step(3)))
TWO = Ranks(tp=2)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({}, ("local", None)),
        ({"gpu": True}, ("persistent", "cuda")),
        ({"gpu": True, "ranks": Ranks(dp=2)}, ("server", "cuda")),
        ({"gpu": True, "kind": "server"}, ("server", "cuda")),
        ({"kind": "persistent"}, ("persistent", None)),
        ({"kind": "server", "ranks": Ranks(2, 2, 2)}, ("server", None)),
    ],
)
def test_what_is_not_asked_for_is_filled_in(asked, chosen):
    options = choose(**asked)
    assert (options.kind, options.device) == chosen


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ranks": Ranks(tp=0)}, "--sr-tp 0: expected a number from 1 to 8"),
        ({"ranks": Ranks(dp=9), "kind": "server"}, "--sr-dp 9: expected a number from 1 to 8"),
        ({"ranks": Ranks(tp=2, pp=2)}, "--sr-tp 2 --sr-pp 2: several ranks need --sr-engine server, not local"),
        ({"ranks": TWO, "gpu": True, "kind": "persistent"}, "several ranks need --sr-engine server, not persistent"),
        ({"kind": "local", "gpu": True}, "runs on the CPU alone"),
        ({"model": "m"}, "--sr-model m: needs --sr-engine persistent or server"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(asked, said):
    with pytest.raises(ValueError, match=said) as error:
        choose(**asked)
    assert "\n" not in str(error.value)


def test_the_line_names_all_that_is_not_usual():
    assert EngineOptions("server", "cuda", "some/model", Ranks(2, 1, 3)).line == (
        "server device=cuda model=some/model tp_size=2 dp_size=3"
    )
    assert EngineOptions("local", None, None, Ranks()).line == "local"


@pytest.mark.parametrize("model", [None, "some/model"])
def test_on_a_gpu_the_pool_is_no_larger_than_the_configuration_says(model):
    kwargs = engine_kwargs(EngineConfig(max_total_tokens=96), device="cuda", model=model)
    assert kwargs["max_total_tokens"] == 96 and kwargs["disable_cuda_graph"]
    assert device_settings("cuda")["max_total_tokens"] < 100_000, "a server without a configuration has a cap as well"


def test_a_real_model_is_made_deterministic_where_sglang_can_and_keeps_its_prefix_cache():
    on_gpu = engine_kwargs(EngineConfig(), device="cuda", model="some/model")
    assert on_gpu["enable_deterministic_inference"] and on_gpu["attention_backend"] == "triton"
    assert on_gpu["model_path"] == "some/model" and not on_gpu["disable_radix_cache"]
    assert "enable_deterministic_inference" not in engine_kwargs(EngineConfig(), device="cpu", model="some/model")


def test_ranks_go_into_a_scripts_configuration_and_leave_the_rest():
    assert TWO.in_script(SCRIPT) == Script(EngineConfig(page_size=4, tp_size=2), SCRIPT.actions)
    assert Ranks().in_script(SCRIPT) is SCRIPT
    own = Script(EngineConfig(pp_size=2), ())
    assert TWO.in_script(own).config == EngineConfig(tp_size=2, pp_size=2)


def test_a_ranked_engine_plays_every_configuration_with_its_ranks():
    fake = FakeEngine(lambda script: None)
    RankedEngine(fake, TWO).run(SCRIPT)
    assert [script.config for script in fake.played] == [EngineConfig(page_size=4, tp_size=2)]


@pytest.mark.parametrize("needs_them", [True, False])
def test_a_finding_says_which_ranks_it_needs(needs_them):
    broken = FakeEngine(lambda script: leak() if script.config.tp_size == 2 or not needs_them else None)
    with pytest.raises(pytest.fail.Exception) as failure:
        PropertyChecker(broken, {}, ranks=TWO)(just(SCRIPT))
    assert broken.played[0].config.tp_size == 2
    assert ("tp_size=2" in str(failure.value)) == needs_them


@pytest.mark.parametrize(
    ("field", "value"), [("prefix_tree", "rust"), ("req_waiting_timeout", 20.0), ("disaggregation_mode", "prefill")]
)
def test_the_server_engine_refuses_what_it_cannot_pass_on(field: str, value: Any):
    with ServerEngine(device="cpu") as engine, pytest.raises(EngineError, match=f"^{field}={value}: the server engine"):
        engine.refuse(EngineConfig(**{field: value}))
