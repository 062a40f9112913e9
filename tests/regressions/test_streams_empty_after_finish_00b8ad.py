"""streams: empty_after_finish, after step 5.

r0 got 1 messages with 0 tokens after its finish at step 5

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [default] r0 = start_req(1:20, new=20); step(4); exhaust_kv(0); step(2); release

Last steps:
          | r0 = start_req(1:20, new=20)
          | step(4)
       1  extend[r0]                    free 112p  5r  chunk r0
       2  extend[r0]                    free 108p  5r
       3  decode[r0]                    free 107p  5r  -> r0 +1
       4  decode[r0]                    free 106p  5r  -> r0 +1
          | exhaust_kv(0)
          | step(2)
       5  -                             free   2p  6r  -> r0 abort, r0 +0
"""

import pytest

from sr_fuzz.script import EngineConfig, ExhaustKv, Prompt, Release, Script, StartReq, Step

SIGNATURE = "streams:empty_after_finish:radix+overlap"
# A decode half also aborts whom its host pool cannot take, drafts take room that a request was not refused for, and a
# window's pool may be too small for one: none of them needs an exhauster.
ALSO_SEEN_AS = (
    "streams:empty_after_finish:radix+overlap+decode",
    "streams:empty_after_finish:*overlap*+ngram",
    "streams:empty_after_finish:*overlap*+swa*",
)

MENDED_BY = "sr_fuzz.faults.fixes.output:nothing_after_the_end"

SCRIPT = Script(
    config=EngineConfig(),
    actions=(
        StartReq("r0", prompt=Prompt(family=1, length=20), max_new_tokens=20),
        Step(4),
        ExhaustKv(),
        Step(2),
        Release(),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="retract_decode aborts the last running request for lack of memory and "
    "update_running_batch answers it at once (managers/scheduler.py:4514-4519); under overlap"
    " its result in flight is processed afterwards and streams an empty message for a request"
    " that is closed",
)
def test_streams_empty_after_finish_00b8ad(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
