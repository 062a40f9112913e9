"""nobody_lost: lost, after step 7.

r2 arrived and got no answer, and is in no queue or batch

Found on SGLang 0.5.16; shown by 5 of 5 fresh runs.
Minimised from 41 actions to 5 in 30 runs.

Script:
    [max_total_tokens=64 max_running_requests=3 disable_overlap_schedule=True enable_priority_scheduling=True] r0 = s...
    r1 = start_req(0:3, new=12); r2 = start_req(0:4, new=12); step(6);
    r3 = start_req(0:57+2, new=4, priority=-2, return_logprob, logprob_start_len=0, top_logprobs_num=1)

Last steps:
          | r0 = start_req(0:24, new=12)
          | r1 = start_req(0:3, new=12)
          | r2 = start_req(0:4, new=12)
          | step(6)
       1  extend[r0]                    free  48p  2r  wait r1 r2  chunk r0
       2  extend[r0 r1]                 free  40p  1r  wait r2  -> r0 +1, r1 +1
       3  extend[r2]                    free  40p  0r  -> r2 +1
       4  decode[r0 r1 r2]              free  37p  0r  -> r0 +1, r1 +1, r2 +1
       5  decode[r0 r1 r2]              free  34p  0r  -> r0 +1, r1 +1, r2 +1
       6  decode[r0 r1 r2]              free  31p  0r  -> r0 +1, r1 +1, r2 +1
          | r3 = start_req(0:57+2, new=4, priority=-2, return_logprob, logprob_start_len=0, top_logprobs_num=1)
          | epilogue: release, continue, drain
       7  decode[r0 r1]                 free  32p  1r  wait r3  -> r0 +1, r1 +1
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "nobody_lost:lost:radix+normal"

ALSO_SEEN_AS = (
    "nobody_lost:lost:radix+overlap",
    "nobody_lost:lost:radix+normal+paged",
    "nobody_lost:lost:radix+overlap+paged",
)

MENDED_BY = "sr_fuzz.faults.fixes.scheduling:preempted_waits_again"

SCRIPT = Script(
    config=EngineConfig(
        max_total_tokens=64,
        max_running_requests=3,
        disable_overlap_schedule=True,
        enable_priority_scheduling=True,
    ),
    actions=(
        StartReq("r0", prompt=Prompt(length=24), max_new_tokens=12),
        StartReq("r1", prompt=Prompt(length=3), max_new_tokens=12),
        StartReq("r2", prompt=Prompt(length=4), max_new_tokens=12),
        Step(6),
        StartReq(
            "r3",
            prompt=Prompt(length=57, unique_tail=2),
            max_new_tokens=4,
            priority=-2,
            return_logprob=True,
            logprob_start_len=0,
            top_logprobs_num=1,
        ),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.22",
    reason="preempt_list is not put back when nothing was admitted (managers/scheduler.py:3028 in "
    "0.5.16): docs/findings/preempted-request-lost.md",
)
def test_nobody_lost_lost_f7bf31(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
