"""paused_frozen: forward_while_paused, after step 2.

a extend batch of 1 requests ran while paused

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 37 actions to 3 in 8 runs.

Script:
    [max_running_requests=8 schedule_conservativeness=0.05 pp_size=2] r8 = start_req(1:32+16, new=12, ignore_eos);
    pause(in_place); step(2)

Last steps:
          | r8 = start_req(1:32+16, new=12, ignore_eos)
          | pause(in_place)
          | step(2)
       1  extend[r8]                    free 112p  7r  chunk r8
       2  extend[r8]                    free  96p  7r
"""

import pytest

from sr_fuzz.script import EngineConfig, Pause, Prompt, Script, StartReq, Step

SIGNATURE = "paused_frozen:forward_while_paused:radix+overlap+pipeline"

SCRIPT = Script(
    config=EngineConfig(max_running_requests=8, schedule_conservativeness=0.05, pp_size=2),
    actions=(
        StartReq("r8", prompt=Prompt(family=1, length=32, unique_tail=16), max_new_tokens=12, ignore_eos=True),
        Pause(mode="in_place"),
        Step(2),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="event_loop_pp never looks at the paused flag (managers/scheduler_pp_mixin.py:104), see "
    "docs/findings/pause-does-not-pause-a-pipeline.md",
)
def test_paused_frozen_forward_while_paused_e59d74(sr_server_engine):
    outcome = sr_server_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
