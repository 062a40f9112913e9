"""liveness: stuck_waiting, after step 61.

no forward in 60 turns although r0 (waiting) waits for an answer; 128 of 128 pages and 6 rows are free

Found on SGLang 0.5.16; shown by 5 of 5 fresh runs.
Minimised from 49 actions to 3 in 23 runs.

Script:
    [default] exhaust_kv(0); r0 = start_req(0:1, new=1); step(1)

Last steps:
      54  -                             free 128p  6r  wait r0
      55  -                             free 128p  6r  wait r0
      56  -                             free 128p  6r  wait r0
      57  -                             free 128p  6r  wait r0
      58  -                             free 128p  6r  wait r0
      59  -                             free 128p  6r  wait r0
      60  -                             free 128p  6r  wait r0
      61  -                             free 128p  6r  wait r0
"""

import pytest

from sr_fuzz.script import EngineConfig, ExhaustKv, Prompt, Script, StartReq, Step

SIGNATURE = "liveness:stuck_waiting:radix+overlap"

ALSO_SEEN_AS = (
    "liveness:stuck_waiting:radix+normal",
    "liveness:stuck_waiting:radix+normal+paged",
    "liveness:stuck_waiting:no-radix+normal",
    "liveness:stuck_waiting:no-radix+overlap",
)

MENDED_BY = "sr_fuzz.faults.fixes.scheduling:empty_batch_is_not_full"

SCRIPT = Script(
    config=EngineConfig(),
    actions=(
        ExhaustKv(),
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=1),
        Step(),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.22",
    reason="batch_is_full is never cleared for an empty batch (managers/scheduler.py:3981 in "
    "0.5.21): docs/findings/admission-stays-shut.md",
)
def test_liveness_stuck_waiting_d6157a(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
