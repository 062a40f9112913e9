"""liveness: stuck_prealloc, after step 64.

no forward in 60 turns although r0 (prealloc) waits for an answer; 128 of 128 pages and 18 rows are free

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 6 actions to 3 in 12 runs.

Script:
    [disaggregation_mode=decode] r0 = start_req(0:51, new=96, ignore_eos); step(4); pause(retract)

Last steps:
      57  -                             free 128p 18r
      58  -                             free 128p 18r
      59  -                             free 128p 18r
      60  -                             free 128p 18r
      61  -                             free 128p 18r
      62  -                             free 128p 18r
      63  -                             free 128p 18r
      64  -                             free 128p 18r
"""

import pytest

from sr_fuzz.script import EngineConfig, Pause, Prompt, Script, StartReq, Step

SIGNATURE = "liveness:stuck_prealloc:radix+overlap+decode"

MENDED_BY = "sr_fuzz.faults.fixes.disaggregation:output_counted_once"

SCRIPT = Script(
    config=EngineConfig(disaggregation_mode="decode"),
    actions=(
        StartReq("r0", prompt=Prompt(length=51), max_new_tokens=96, ignore_eos=True),
        Step(4),
        Pause(),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="_required_admission_tokens (disaggregation/decode.py:508) adds the whole max_new_tokens "
    "to the prompt and the output so far: a request that a pause took back and that is near "
    "the pool's size is admitted no more, nor is anybody behind it",
)
def test_liveness_stuck_prealloc_e16a70(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
