"""http_answers: control_stuck, after step 65.

the server has not passed on `continue` for 60 turns without a forward: the pause in mode abort before it waits for r0
to be answered, and the scheduler, paused, answers nobody

Found on SGLang 0.5.23; shown by 2 of 2 fresh runs.

Script:
    [default] r0 = start_req(0:40, new=20); step(5); pause(in_place); pause(abort); continue

Last steps:
      58  paused                        free  86p  5r
      59  paused                        free  86p  5r
      60  paused                        free  86p  5r
      61  paused                        free  86p  5r
      62  paused                        free  86p  5r
      63  paused                        free  86p  5r
      64  paused                        free  86p  5r
      65  paused                        free  86p  5r
"""

import pytest

from sr_fuzz.script import Continue, EngineConfig, Pause, Prompt, Script, StartReq, Step

SIGNATURE = "http_answers:control_stuck:radix+overlap"

SCRIPT = Script(
    config=EngineConfig(),
    actions=(
        StartReq("r0", prompt=Prompt(length=40), max_new_tokens=20),
        Step(5),
        Pause(mode="in_place"),
        Pause(mode="abort"),
        Continue(),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="TokenizerManager.pause_generation in mode abort holds is_pause_cond until everybody is "
    "answered (managers/tokenizer_manager.py:2267-2280); a scheduler that is paused in place "
    "answers nobody, and continue needs the same lock",
)
def test_http_answers_control_stuck_1b7970(sr_server_engine):
    outcome = sr_server_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
