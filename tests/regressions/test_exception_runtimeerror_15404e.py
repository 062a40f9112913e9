"""exception: RuntimeError, after step 6.

SGLang raised RuntimeError: Out of memory. Try to lower your batch size.
Try to allocate 5 tokens.
Available full tokens: 52 (full_available_size=52 + full_evictable_size_=0)
Available swa: 4 (available_size=4 + component_evictable_size_=0)

Found on SGLang 0.5.20; shown by 5 of 5 fresh runs.
Minimised from 76 actions to 8 in 37 runs.

Script:
    [max_total_tokens=96 enable_mixed_chunk=True schedule_conservativeness=0.03 model=swa swa_full_tokens_ratio=0.5] ...
    step(1); r1 = start_req(0:5+2, new=36, stop_token_ids=(33, 38)); step(1);
    r2 = start_req(1:6+3, new=36, stop_token_ids=(63, 36)); r3 = start_req(2:7+3, new=36);
    r4 = start_req(3:8+4, new=36); r5 = start_req(0:9+4, new=36, stop_token_ids=(35, 40))

Last steps:
          | r0 = start_req(0:4+2, new=36)
          | step(1)
       1  extend[r0]                    free  92p  5r
          | r1 = start_req(0:5+2, new=36, stop_token_ids=(33, 38))
          | step(1)
       2  mixed[r1 r0]                  free  86p  4r  -> r0 +1
          | r2 = start_req(1:6+3, new=36, stop_token_ids=(63, 36))
          | r3 = start_req(2:7+3, new=36)
          | r4 = start_req(3:8+4, new=36)
          | r5 = start_req(0:9+4, new=36, stop_token_ids=(35, 40))
          | epilogue: release, continue, drain
       3  mixed[r2 r1 r0]               free  80p  3r  wait r3 r4 r5  -> r1 +1, r0 +1
       4  mixed[r3 r2 r1 r0]            free  70p  2r  wait r4 r5  -> r2 +1, r1 +1, r0 +1
       5  mixed[r4 r3 r2 r1 r0]         free  58p  1r  wait r5  -> r3 +1, r2 +1, r1 +1, r0 +1
       6  -                             free   0p  0r

In SGLang, innermost first:
    mem_cache/allocation.py:alloc_token_slots: raise RuntimeError(error_msg)
    mem_cache/allocation.py:alloc_for_decode: out_cache_loc = alloc_token_slots(batch.tree_cache, bs * token_per_req)
    managers/schedule_batch.py:prepare_for_decode: self.out_cache_loc = alloc_for_decode(self, token_per_req=1)
    managers/scheduler.py:_get_new_batch_prefill_raw: running_batch.prepare_for_decode()
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "exception:RuntimeError:radix+overlap+swa:fad9c2"

MENDED_BY = "sr_fuzz.faults.fixes.scheduling:mixed_with_room"

SCRIPT = Script(
    config=EngineConfig(
        max_total_tokens=96,
        enable_mixed_chunk=True,
        schedule_conservativeness=0.03,
        model="swa",
        swa_full_tokens_ratio=0.5,
    ),
    actions=(
        StartReq("r0", prompt=Prompt(length=4, unique_tail=2), max_new_tokens=36),
        Step(),
        StartReq("r1", prompt=Prompt(length=5, unique_tail=2), max_new_tokens=36, stop_token_ids=(33, 38)),
        Step(),
        StartReq("r2", prompt=Prompt(family=1, length=6, unique_tail=3), max_new_tokens=36, stop_token_ids=(63, 36)),
        StartReq("r3", prompt=Prompt(family=2, length=7, unique_tail=3), max_new_tokens=36),
        StartReq("r4", prompt=Prompt(family=3, unique_tail=4), max_new_tokens=36),
        StartReq("r5", prompt=Prompt(length=9, unique_tail=4), max_new_tokens=36, stop_token_ids=(35, 40)),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.22",
    reason="a mixed step takes memory for the running requests without asking whether it is there: "
    "in Scheduler._get_new_batch_prefill_raw prepare_for_decode follows the prefill's own "
    "allocation without check_decode_mem (0.5.21: managers/scheduler.py:4139-4142), and with "
    "two pools admission has counted the full one; 0.5.22 asks (4269)",
)
def test_exception_runtimeerror_15404e(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
