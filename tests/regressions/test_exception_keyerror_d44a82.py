"""exception: KeyError, after step 9.

SGLang raised KeyError: 'l0'

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 7 actions to 5 in 31 runs.

Script:
    [chunked_prefill_size=8 disable_overlap_schedule=True model=swa swa_full_tokens_ratio=0.25 enable_lora=True max_l...
    r1 = start_req(2:6, new=28); step(4); r2 = start_req(0:60, new=4, lora_path=l0);
    r3 = start_req(3:4, new=4, lora_path=l2)

Last steps:
       2  extend[r1]                    free 116p  4r  -> r1 +1
       3  decode[r0 r1]                 free 114p  4r  -> r0 +1, r1 +1
       4  decode[r0 r1]                 free 112p  4r  -> r0 +1, r1 +1
          | r2 = start_req(0:60, new=4, lora_path=l0)
          | r3 = start_req(3:4, new=4, lora_path=l2)
          | epilogue: release, continue, drain
       5  decode[r0 r1]                 free 110p  4r  wait r2 r3  -> r0 +1, r1 +1
       6  extend[r2]                    free 102p  3r  wait r3  chunk r2
       7  extend[r2]                    free  97p  3r  wait r3  chunk r2
       8  decode[r0]                    free 103p  4r  wait r3 r1  chunk r2  -> r0 +1
       9  extend[r2]                    free   0p  0r

In SGLang, innermost first:
    lora/mem_pool.py:get_buffer_id: return self.uid_to_buffer_id[lora_uid]
    lora/lora_manager.py:prepare_lora_batch: weight_index = self.memory_pool.get_buffer_id(uid)
    model_executor/forward_batch_info.py:init_new: model_runner.lora_manager.prepare_lora_batch(ret)
    managers/tp_worker.py:forward_batch_generation: forward_batch = ForwardBatch.init_new(
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "exception:KeyError:radix+normal+swa+lora:6833cf"
# Up to 0.5.20 the chunk runs all the same, with the adapter that another slot holds.
ALSO_SEEN_AS = ("exception:KeyError:*+swa+lora:6833cf", "lora:not_in_pool:*+swa+lora")

MENDED_BY = "sr_fuzz.faults.fixes.adapters:chunk_keeps_its_adapter"

SCRIPT = Script(
    config=EngineConfig(
        chunked_prefill_size=8,
        disable_overlap_schedule=True,
        model="swa",
        swa_full_tokens_ratio=0.25,
        enable_lora=True,
        max_loras_per_batch=2,
        enable_lora_overlap_loading=True,
    ),
    actions=(
        StartReq("r0", prompt=Prompt(length=6), max_new_tokens=28),
        StartReq("r1", prompt=Prompt(family=2, length=6), max_new_tokens=28),
        Step(4),
        StartReq("r2", prompt=Prompt(length=60), max_new_tokens=4, lora_path="l0"),
        StartReq("r3", prompt=Prompt(family=3, length=4), max_new_tokens=4, lora_path="l2"),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="what running requests need is counted over the running batch and those admitted in this "
    "turn (managers/scheduler.py:4186-4191): a chunk that is parked is in neither, so "
    "LoRAOverlapLoader gives its adapter's slot to another one, and its next chunk finds no "
    "slot (lora/lora_manager.py:545)",
)
def test_exception_keyerror_d44a82(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
