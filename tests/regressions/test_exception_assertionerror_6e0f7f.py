"""exception: AssertionError, after step 1.

SGLang raised AssertionError: session_id='s0.' already has a slot

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [enable_streaming_session=True] open_session(s0, streaming=True); r0 = start_req(0:1, new=1, session=s0);
    r1 = start_req(0:1, new=1, session=s0)

Last steps:
          | open_session(s0, streaming=True)
          | r0 = start_req(0:1, new=1, session=s0)
          | r1 = start_req(0:1, new=1, session=s0)
          | epilogue: release, continue, drain
       1  -                             free   0p  0r

In SGLang, innermost first:
    session/streaming_session.py:take: assert session_id not in self.slots, f"{session_id=} already has a slot"
    mem_cache/unified_radix_cache.py:maybe_hand_to_session: self.session.take(req)
    mem_cache/allocation.py:alloc_for_extend: batch.tree_cache.maybe_hand_to_session(req)
    managers/schedule_batch.py:prepare_for_extend: out_cache_loc, req_pool_indices_tensor, req_pool_indices_cpu = all...
"""

import pytest

from sr_fuzz.script import EngineConfig, OpenSession, Prompt, Script, SessionParams, StartReq

SIGNATURE = "exception:AssertionError:radix+overlap+sessions:79334c"

ALSO_SEEN_AS = ("exception:AssertionError:*:79334c",)

MENDED_BY = "sr_fuzz.faults.fixes.sessions:refused_turn"

SCRIPT = Script(
    config=EngineConfig(enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
        StartReq("r1", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="Session.create_req refuses the second turn but lets it keep its session "
    "(session/session_controller.py:308, 345); find_active_slot takes that away only where "
    "there is a slot already (session/streaming_session.py:82-86), so that in the batch of a "
    "first turn both take the slot and StreamingSession.take asserts (215)",
)
def test_exception_assertionerror_6e0f7f(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
