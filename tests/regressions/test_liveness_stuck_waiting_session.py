"""liveness: stuck_waiting, after a session gave back the memory that was missing.

no forward in 60 turns although r2 (waiting) waits for an answer; 123 of 128 pages and 6 rows are free

Found on SGLang 0.5.20.
"""

import pytest

from sr_fuzz.script import EngineConfig, OpenSession, Prompt, Script, SessionParams, StartReq, StepUntil

SIGNATURE = "liveness:stuck_waiting:radix+overlap+sessions"

ALSO_SEEN_AS = ("liveness:stuck_waiting:no-radix+overlap+sessions",)

MENDED_BY = "sr_fuzz.faults.fixes.scheduling:empty_batch_is_not_full"

SCRIPT = Script(
    config=EngineConfig(enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=5), max_new_tokens=20, session=SessionParams("s0")),
        StepUntil("r0", "finished"),
        StartReq("r1", max_new_tokens=12, session=SessionParams("s0")),
        StartReq("r2", prompt=Prompt(length=79), max_new_tokens=14, return_logprob=True, logprob_start_len=0),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.22",
    reason="a request that does not fit sets batch_is_full, and only a request that leaves the running batch clears it "
    "(_get_new_batch_prefill_raw and update_running_batch in managers/scheduler.py); when nothing runs, nothing does",
)
def test_liveness_stuck_waiting_session(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
