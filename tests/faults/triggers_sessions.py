"""Short scripts that make the faults of `sr_fuzz.faults.catalogue.sessions` strike deterministically."""

from __future__ import annotations

from sr_fuzz.script import (
    Abort,
    Action,
    CloseSession,
    EngineConfig,
    OpenSession,
    Prompt,
    Script,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)  # fmt: skip

_CONFIG = EngineConfig(max_total_tokens=128, max_running_requests=4, enable_streaming_session=True)
_TURN = SessionParams("s0")

_FIRST: tuple[Action, ...] = (
    OpenSession("s0", streaming=True),
    StartReq("r0", Prompt(length=10), session=_TURN),
    StepUntil("r0", "finished"),
    StartReq("r1", Prompt(1, 6), max_new_tokens=12, session=_TURN),
    StepUntil("r1", "first_decode"),
)
_CLOSED: tuple[Action, ...] = (*_FIRST, CloseSession("s0"), Step(30))
_ABORTED: tuple[Action, ...] = (
    *_FIRST,
    Abort("r1"),
    Step(3),
    StartReq("r2", Prompt(2, 4), session=_TURN),
    StepUntil("r2", "finished"),
)

SCRIPTS: dict[str, Script] = {
    "unclosed_slot": Script(_CONFIG, _CLOSED),
    "closed_under_turn": Script(_CONFIG, _CLOSED),
    "cut_history": Script(_CONFIG, _ABORTED),
    "dead_session": Script(_CONFIG, _ABORTED),
}
"""For each fault, a script that creates the condition under which it strikes."""
