"""sessions: kv_beyond_history, after step 5.

session s0 keeps 14 tokens, its last turn r0 ended with 5

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [enable_streaming_session=True] open_session(s0, streaming=True); r0 = start_req(0:4, new=1, session=s0);
    step(2); r1 = start_req(0:8, new=6, session=s0); step(2); pause(retract); abort(r1)

Last steps:
          | open_session(s0, streaming=True)
          | r0 = start_req(0:4, new=1, session=s0)
          | step(2)
       1  extend[r0]                    free 124p  5r
       2  -                             free 124p  5r  -> r0 +1 finish:length
          | r1 = start_req(0:8, new=6, session=s0)
          | step(2)
       3  extend[r1]                    free 115p  5r
       4  decode[r1]                    free 114p  5r  -> r1 +1
          | pause(retract)
          | abort(r1)
          | epilogue: release, continue, drain
       5  -                             free 114p  5r  -> r1 +1, r1 abort
"""

import pytest

from sr_fuzz.script import Abort, EngineConfig, OpenSession, Pause, Prompt, Script, SessionParams, StartReq, Step

SIGNATURE = "sessions:kv_beyond_history:radix+overlap+sessions"

ALSO_SEEN_AS = (
    "sessions:kv_beyond_history:radix+normal+sessions",
    "sessions:kv_beyond_history:radix+overlap+paged+sessions",
    # The same with a session's first turn.
    "sessions:kv_without_history:radix+overlap+sessions",
    "sessions:kv_without_history:radix+normal+sessions",
    "sessions:kv_without_history:radix+overlap+paged+sessions",
)

# Up to 0.5.21 what ends the script shows another bug as well.
MENDED_BY = ("sr_fuzz.faults.fixes.sessions:retracted_turn", "sr_fuzz.faults.fixes.sessions:waiting_turn_aborted")

SCRIPT = Script(
    config=EngineConfig(enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=4), max_new_tokens=1, session=SessionParams("s0")),
        Step(2),
        StartReq("r1", max_new_tokens=6, session=SessionParams("s0")),
        Step(2),
        Pause(),
        Abort("r1"),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="a turn that is retracted and then aborted stays in the history: try_cache_finished_req "
    "calls finish_req for the retracted turn (session/streaming_session.py:190), and the "
    "abort of a waiting request does not take that back (managers/scheduler.py:3545-3550); "
    "the next turn continues what its client was told is aborted",
)
def test_sessions_kv_beyond_history_9e9359(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
