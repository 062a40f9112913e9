"""LoRA adapters on a real scheduler: each request gets the output of its own adapter."""

from __future__ import annotations

from itertools import islice

import pytest
from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.oracle.function import all_prompt_tokens, continuation
from sr_fuzz.script import Prompt, Script, StartReq, Step, StepUntil

CONFIG = CONFIG_SETS["lora"]["lora-chunk16"]
ADAPTERS = (None, "l0", "l1", "l2", "l3")


def test_requests_with_one_prompt_and_other_adapters_get_other_outputs(sr_engine):
    starts = [
        StartReq(f"r{i}", Prompt(length=20), 6, ignore_eos=True, lora_path=name) for i, name in enumerate(ADAPTERS)
    ]
    outcome = sr_engine.run(Script(CONFIG, (*starts, Step(30))))
    assert outcome.ok, outcome.report()
    prompt = all_prompt_tokens(starts)["r0"]
    for start in starts:
        assert outcome.outputs[start.name] == tuple(islice(continuation(prompt, adapter=start.lora_path), 6))


def test_a_batch_has_no_more_adapters_than_fit_and_the_rest_waits(sr_engine):
    starts = [StartReq(f"r{i}", Prompt(i, 4), 8, ignore_eos=True, lora_path=f"l{i}") for i in range(4)]
    outcome = sr_engine.run(Script(CONFIG, (*starts, Step(1))))
    assert outcome.ok, outcome.report()
    batches = [record.batch for record in outcome.trace if record.mode is not None]
    assert max(map(len, batches)) == CONFIG.max_loras_per_batch
    assert {rid for batch in batches for rid in batch} == {start.name for start in starts}


@pytest.mark.parametrize("other", ["l0", "l1"])
def test_a_prefix_is_found_by_its_own_adapter_alone(sr_engine, other):
    first = StartReq("r0", Prompt(length=32), 1, lora_path="l0")
    second = StartReq("r1", Prompt(length=40), 1, lora_path=other)
    outcome = sr_engine.run(Script(CONFIG, (first, StepUntil("r0", "finished"), second, Step(6))))
    assert outcome.ok, outcome.report()
    # Chunks of 16 tokens: 8 tokens that are not cached take one prefill, 40 take three.
    prefills = [record for record in outcome.trace if record.mode == "extend" and "r1" in record.batch]
    assert len(prefills) == (1 if other == "l0" else 3)


def test_an_adapter_is_loaded_beside_the_model_before_its_request_runs(sr_engine):
    config = CONFIG_SETS["lora"]["lora-loading-chunk16"]
    outcome = sr_engine.run(Script(config, (StartReq("r0", Prompt(length=8), 2, lora_path="l0"), Step(4))))
    assert outcome.ok, outcome.report()
    # The copy begins in the first step.
    assert [record.mode for record in outcome.trace][:2] == [None, "extend"]
