"""streams: logprobs_missing, after step 13.

r0 got 0 logprobs with 1 tokens

Found on SGLang 0.5.16; shown by 5 of 5 fresh runs.
Minimised from 3 actions to 3 in 12 runs.

Script:
    [max_running_requests=1 enable_priority_scheduling=True] r0 = start_req(0:8, new=8, return_logprob); step(1);
    r1 = start_req(1:8, new=8, priority=20)

Last steps:
       6  decode[r1]                    free 116p  0r  wait r0  -> r1 +1
       7  decode[r1]                    free 115p  0r  wait r0  -> r1 +1
       8  decode[r1]                    free 114p  0r  wait r0  -> r1 +1
       9  decode[r1]                    free 113p  0r  wait r0  -> r1 +1
      10  decode[r1]                    free 112p  1r  wait r0  -> r1 +1 finish:length
      11  -                             free 112p  1r  wait r0
      12  extend[r0]                    free 104p  0r
      13  decode[r0]                    free 103p  0r  -> r0 +1
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "streams:logprobs_missing:radix+overlap"

ALSO_SEEN_AS = ("streams:logprobs_missing:radix+overlap+paged",)

SCRIPT = Script(
    config=EngineConfig(max_running_requests=1, enable_priority_scheduling=True),
    actions=(
        StartReq("r0", return_logprob=True),
        Step(),
        StartReq("r1", prompt=Prompt(family=1), priority=20),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.19",
    reason="a request that is preempted while its prefill is in flight is streamed an empty message,"
    " and the offset into its logprobs moves on by one all the same "
    "(scheduler_components/output_streamer.py:460 in 0.5.16)",
)
def test_streams_logprobs_missing_29459c(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
