"""kv_pages: owned_twice, after step 2.

2 pages have two owners: page 5: r0, r1; page 6: r0, r1

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [enable_streaming_session=True] open_session(s0, streaming=True); r0 = start_req(0:1, new=3, session=s0);
    step(1); pause(retract); r1 = start_req(0:1, new=1, session=s0)

Last steps:
          | open_session(s0, streaming=True)
          | r0 = start_req(0:1, new=3, session=s0)
          | step(1)
       1  extend[r0]                    free 127p  5r
          | pause(retract)
          | r1 = start_req(0:1, new=1, session=s0)
          | epilogue: release, continue, drain
       2  extend[r0 r1]                 free 122p  5r  -> r0 +1
"""

import pytest

from sr_fuzz.script import EngineConfig, OpenSession, Pause, Prompt, Script, SessionParams, StartReq, Step

SIGNATURE = "kv_pages:owned_twice:radix+overlap+sessions"

ALSO_SEEN_AS = (
    "sessions:two_turns_at_once:radix+normal+sessions",
    "kv_pages:leaked:radix+normal+sessions",
    "kv_pages:owned_twice:radix+normal+sessions",
    "kv_pages:owned_twice:radix+overlap+paged+sessions",
    "kv_pages:owned_twice:no-radix+overlap+sessions",
    "sessions:two_turns_at_once:radix+overlap+sessions",
    "sessions:two_turns_at_once:no-radix+overlap+sessions",
    "sessions:two_turns_at_once:radix+overlap+paged+sessions",
)

MENDED_BY = ("sr_fuzz.faults.fixes.sessions:retracted_turn", "sr_fuzz.faults.fixes.sessions:refused_turn")

SCRIPT = Script(
    config=EngineConfig(enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=3, session=SessionParams("s0")),
        Step(),
        Pause(),
        StartReq("r1", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="a retraction ends the turn for its session: try_cache_finished_req calls finish_req for "
    "a retracted turn too (session/streaming_session.py:190), which clears the in-flight "
    "flag; the next turn is accepted while the retracted one waits, and both run on one row",
)
def test_kv_pages_owned_twice_8f1dd5(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
