"""sessions: refused_without_cause, after an abort of a turn that waited.

r2 was refused because session s0 has an active request, but every turn before it had been answered when it came

Seen on SGLang 0.5.16, 0.5.18 and 0.5.20.
"""

import pytest

from sr_fuzz.script import (
    Abort,
    EngineConfig,
    OpenSession,
    Prompt,
    Script,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)

SIGNATURE = "sessions:refused_without_cause:radix+overlap+sessions"

MENDED_BY = "sr_fuzz.faults.fixes.sessions:waiting_turn_aborted"

SCRIPT = Script(
    config=EngineConfig(enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=10), session=SessionParams("s0")),
        StepUntil("r0", "finished"),
        StartReq("r1", prompt=Prompt(family=1, length=20), max_new_tokens=30, session=SessionParams("s0")),
        Abort("r1"),
        Step(2),
        StartReq("r2", prompt=Prompt(family=2, length=5), session=SessionParams("s0")),
        Step(4),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.22",
    reason="abort_request takes a waiting request out of the queue without telling its streaming session "
    "(managers/scheduler.py), whose flag of a turn under way stays set",
)
def test_sessions_refused_without_cause_5a1c0e(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
