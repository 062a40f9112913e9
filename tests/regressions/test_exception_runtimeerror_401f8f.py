"""exception: RuntimeError, after step 10.

SGLang raised RuntimeError: Out of memory. Try to lower your batch size.
Try to allocate 7 tokens.
Available full tokens: 4 (full_available_size=4 + full_evictable_size_=0)

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 5 actions to 5 in 30 runs.

Script:
    [max_total_tokens=96 enable_mixed_chunk=True schedule_conservativeness=0.03] r0 = start_req(0:1, new=48);
    r1 = start_req(2:3, new=48); r2 = start_req(3:4, new=48); r3 = start_req(0:5, new=48);
    r4 = start_req(0:66, new=0)

Last steps:
       3  mixed[r2 r1 r0]               free  85p  3r  wait r3 r4  -> r1 +1, r0 +1
       4  mixed[r3 r2 r1 r0]            free  78p  2r  wait r4  -> r2 +1, r1 +1, r0 +1
       5  mixed[r4 r3 r2 r1 r0]         free  62p  1r  chunk r4  -> r3 +1, r2 +1, r1 +1, r0 +1
       6  mixed[r4 r3 r2 r1 r0]         free  50p  1r  chunk r4  -> r3 +1, r2 +1, r1 +1, r0 +1
       7  mixed[r4 r3 r2 r1 r0]         free  34p  1r  chunk r4  -> r3 +1, r2 +1, r1 +1, r0 +1
       8  mixed[r4 r3 r2 r1 r0]         free  18p  1r  chunk r4  -> r3 +1, r2 +1, r1 +1, r0 +1
       9  mixed[r4 r3 r2 r1 r0]         free   4p  1r  chunk r4  -> r3 +1, r2 +1, r1 +1, r0 +1
      10  -                             free   0p  0r

In SGLang, innermost first:
    mem_cache/allocation.py:alloc_token_slots: raise RuntimeError(error_msg)
    mem_cache/allocation.py:alloc_for_extend: out_cache_loc = alloc_token_slots(batch.tree_cache, batch.extend_num_to...
    managers/schedule_batch.py:prepare_for_extend: out_cache_loc, req_pool_indices_tensor, req_pool_indices_cpu = all...
    managers/scheduler.py:_get_new_batch_prefill_raw: new_batch.prepare_for_extend()
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "exception:RuntimeError:radix+overlap:149faf"

ALSO_SEEN_AS = ("exception:RuntimeError:*:149faf",)

MENDED_BY = "sr_fuzz.faults.fixes.scheduling:chunk_waits_for_room"

SCRIPT = Script(
    config=EngineConfig(max_total_tokens=96, enable_mixed_chunk=True, schedule_conservativeness=0.03),
    actions=(
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=48),
        StartReq("r1", prompt=Prompt(family=2, length=3), max_new_tokens=48),
        StartReq("r2", prompt=Prompt(family=3, length=4), max_new_tokens=48),
        StartReq("r3", prompt=Prompt(length=5), max_new_tokens=48),
        StartReq("r4", prompt=Prompt(length=66), max_new_tokens=0),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="the next chunk of a chunked request takes memory that is not there: where nothing is "
    "left PrefillBudget.available_chunk_tokens answers with a whole chunk, so that it makes "
    "progress (mem_cache/prefill_budget.py:142-145), and alloc_for_extend raises; running "
    "requests that joined the batch have taken the rest",
)
def test_exception_runtimeerror_401f8f(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
