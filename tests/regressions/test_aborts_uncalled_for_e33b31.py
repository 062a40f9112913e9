"""aborts: uncalled_for, after step 3.

r0 ended as aborted, nobody had asked for it: {'type': 'abort'}

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 36 actions to 3 in 25 runs.

Script:
    [chunked_prefill_size=8 disable_overlap_schedule=True req_running_timeout=10.0] r0 = start_req(0:26, new=1);
    step(1); advance_clock(seconds=25.0)

Last steps:
          | r0 = start_req(0:26, new=1)
          | step(1)
       1  extend[r0]                    free 120p  5r  chunk r0
          | advance_clock(seconds=25.0)
          | epilogue: release, continue, drain
       2  extend[r0]                    free 112p  5r  chunk r0
       3  -                             free 120p  6r  -> r0 abort
"""

import pytest

from sr_fuzz.script import AdvanceClock, EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "aborts:uncalled_for:radix+normal"

MENDED_BY = "sr_fuzz.faults.fixes.output:time_out_keeps_its_reason"

SCRIPT = Script(
    config=EngineConfig(chunked_prefill_size=8, disable_overlap_schedule=True, req_running_timeout=10.0),
    actions=(
        StartReq("r0", prompt=Prompt(length=26), max_new_tokens=1),
        Step(),
        AdvanceClock(seconds=25.0),
    ),
)


@pytest.mark.sglang_bug(
    ">=0.5.20",
    reason="abort_request only notes a chunked request for later (managers/scheduler.py:5678), "
    "without the reason it was given; process_pending_chunked_abort then answers it as one "
    "that its client has aborted (3812-3827), though the running time-out of 3622-3648 had a "
    "status and a message",
)
def test_aborts_uncalled_for_e33b31(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
