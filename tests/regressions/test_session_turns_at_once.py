"""kv_pages: owned_twice, after step 5.

3 pages have two owners: page 1: r1, r3; page 2: r1, r3; page 9: r1, r3

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [enable_streaming_session=True] open_session(s0, streaming=True); r0 = start_req(0:1, new=1, session=s0);
    step(2); r1 = start_req(0:4, new=30, session=s0); r2 = start_req(0:1, new=1, session=s0); step(2);
    r3 = start_req(0:1, new=1, session=s0)

Last steps:
          | open_session(s0, streaming=True)
          | r0 = start_req(0:1, new=1, session=s0)
          | step(2)
       1  extend[r0]                    free 127p  5r
       2  -                             free 127p  5r  -> r0 +1 finish:length
          | r1 = start_req(0:4, new=30, session=s0)
          | r2 = start_req(0:1, new=1, session=s0)
          | step(2)
       3  extend[r1 r2]                 free 121p  4r
       4  decode[r1]                    free 120p  5r  -> r1 +1, r2 +1 finish:abort
          | r3 = start_req(0:1, new=1, session=s0)
          | epilogue: release, continue, drain
       5  extend[r3]                    free 124p  5r  -> r1 +1
"""

import pytest

from sr_fuzz.script import EngineConfig, OpenSession, Prompt, Script, SessionParams, StartReq, Step

SIGNATURE = "kv_pages:owned_twice:radix+overlap+sessions"

ALSO_SEEN_AS = (
    "exception:AssertionError:radix+overlap+sessions:eaf1ac",
)

MENDED_BY = "sr_fuzz.faults.fixes.sessions:refused_turn"

SCRIPT = Script(
    config=EngineConfig(enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
        Step(2),
        StartReq("r1", prompt=Prompt(length=4), max_new_tokens=30, session=SessionParams("s0")),
        StartReq("r2", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
        Step(2),
        StartReq("r3", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="a turn that is refused because another is under way clears the flag of that other one: "
    "find_active_slot calls abort_req of the session for it "
    "(session/streaming_session.py:82-86), so that the next turn is accepted and runs on the "
    "row of the first",
)
def test_session_turns_at_once(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
