"""kv_pages: use_after_free, after step 3.

2 pages have two owners: page 46: free, r1.c1; page 47: free, r1.c2

Found on SGLang 0.5.21; shown by 5 of 5 fresh runs.
Minimised from 53 actions to 8 in 38 runs.

Script:
    [max_total_tokens=96 disable_overlap_schedule=True disaggregation_mode=decode] r0 = start_req(2:5+2, new=30, igno...
    r1 = start_req(2:1, new=32, n=3); r2 = start_req(2:6, new=32); r3 = start_req(2:9+4, new=28);
    r4 = start_req(2:10+2, new=30); step(2); pause(retract); flush_cache

Last steps:
          | r0 = start_req(2:5+2, new=30, ignore_eos, n=2)
          | r1 = start_req(2:1, new=32, n=3)
          | r2 = start_req(2:6, new=32)
          | r3 = start_req(2:9+4, new=28)
          | r4 = start_req(2:10+2, new=30)
          | step(2)
       1  decode[r2 r3 r4]              free  68p 15r  -> r0.p +0 finish:length, r1.p +0 finish:length, r2 +1, r3 +1,...
       2  decode[r2 r3 r4 r0.c0 r0.c1 r1.c0]  free  49p 10r  wait r1.c1 r1.c2  -> r0.c0 +1, r0.c1 +1, r1.c0 +1, r2 +1...
          | pause(retract)
          | flush_cache
          | epilogue: release, continue, drain
       3  decode[r1.c1 r1.c2 r2 r3 r4 r0.c0]  free  53p 14r  -> r1.c1 +1, r1.c2 +1, r2 +0, r3 +0, r4 +0, r0.c0 +0, r1...
"""

import pytest

from sr_fuzz.script import EngineConfig, FlushCache, Pause, Prompt, Script, StartReq, Step

SIGNATURE = "kv_pages:use_after_free:radix+normal+decode"

MENDED_BY = "sr_fuzz.faults.fixes.disaggregation:flush_spares_who_waits"

SCRIPT = Script(
    config=EngineConfig(max_total_tokens=96, disable_overlap_schedule=True, disaggregation_mode="decode"),
    actions=(
        StartReq("r0", prompt=Prompt(family=2, length=5, unique_tail=2), max_new_tokens=30, ignore_eos=True, n=2),
        StartReq("r1", prompt=Prompt(family=2, length=1), max_new_tokens=32, n=3),
        StartReq("r2", prompt=Prompt(family=2, length=6), max_new_tokens=32),
        StartReq("r3", prompt=Prompt(family=2, length=9, unique_tail=4), max_new_tokens=28),
        StartReq("r4", prompt=Prompt(family=2, length=10, unique_tail=2), max_new_tokens=30),
        Step(2),
        Pause(),
        FlushCache(),
    ),
)


@pytest.mark.sglang_bug(
    "==0.5.21",
    reason="a flush while the engine is paused asks nothing of the waiting queue (is_fully_idle with"
    " ignore_waiting, managers/scheduler.py:5189, 5028), but in a decode half who waits there"
    " has KV; 0.5.22 asks (5187-5190)",
)
def test_kv_pages_use_after_free_7321e4(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
