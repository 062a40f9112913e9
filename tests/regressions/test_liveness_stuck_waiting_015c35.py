"""liveness: stuck_waiting, after step 60.

no forward in 60 turns although r0 (waiting) waits for an answer; 128 of 128 pages and 6 rows are free

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [is_embedding=True] r0 = start_req(0:128, new=1)

Last steps:
      53  -                             free 128p  6r  wait r0
      54  -                             free 128p  6r  wait r0
      55  -                             free 128p  6r  wait r0
      56  -                             free 128p  6r  wait r0
      57  -                             free 128p  6r  wait r0
      58  -                             free 128p  6r  wait r0
      59  -                             free 128p  6r  wait r0
      60  -                             free 128p  6r  wait r0
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "liveness:stuck_waiting:radix+overlap+embedding"

MENDED_BY = "sr_fuzz.faults.fixes.admission:refused_at_the_door"

SCRIPT = Script(
    config=EngineConfig(is_embedding=True),
    actions=(
        StartReq("r0", prompt=Prompt(length=128), max_new_tokens=1),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="handle_embedding_request finds that a prompt is too long, but puts it into the queue all"
    " the same, without set_finish_with_abort (managers/scheduler.py:3746-3753): it never "
    "fits, and whoever comes after it waits behind it",
)
def test_liveness_stuck_waiting_015c35(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
