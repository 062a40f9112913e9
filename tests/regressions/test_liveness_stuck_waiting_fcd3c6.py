"""liveness: stuck_waiting, after step 60.

no forward in 60 turns although r0 (waiting) waits for an answer; 8 of 8 pages and 6 rows are free

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 30 actions to 1 in 18 runs.

Script:
    [page_size=64 max_total_tokens=512 chunked_prefill_size=64] r0 = start_req(0:505, new=1)

Last steps:
      53  -                             free   8p  6r  wait r0
      54  -                             free   8p  6r  wait r0
      55  -                             free   8p  6r  wait r0
      56  -                             free   8p  6r  wait r0
      57  -                             free   8p  6r  wait r0
      58  -                             free   8p  6r  wait r0
      59  -                             free   8p  6r  wait r0
      60  -                             free   8p  6r  wait r0
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "liveness:stuck_waiting:radix+overlap+paged"

MENDED_BY = "sr_fuzz.faults.fixes.admission:refused_at_the_door"

SCRIPT = Script(
    config=EngineConfig(page_size=64, max_total_tokens=512, chunked_prefill_size=64),
    actions=(
        StartReq("r0", prompt=Prompt(length=505), max_new_tokens=1),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="allocator/base.py:102: a prompt that fits the pool but not the page of overhead on top "
    "is clipped to 0 new tokens, not refused; schedule_policy.py:1412 then never admits it",
)
def test_liveness_stuck_waiting_fcd3c6(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
