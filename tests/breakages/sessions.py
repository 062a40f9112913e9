"""Breakages of sessions."""

from __future__ import annotations

import copy
from typing import Any

from sr_fuzz.faults import triggered
from sr_fuzz.script import Action, CloseSession, EngineConfig, OpenSession, Prompt, SessionParams, StartReq, Step
from sr_fuzz.view.sessions import read_slots
from tests.breakages.breaking import call, state

# The configuration of the faults of sessions.
CONFIG = EngineConfig(max_total_tokens=128, max_running_requests=4, enable_streaming_session=True)

_TURN = SessionParams("s0")
_OPEN: tuple[Action, ...] = (OpenSession("s0", streaming=True), Step())
_FIRST: tuple[Action, ...] = (*_OPEN, StartReq("r0", Prompt(length=10), 4, ignore_eos=True, session=_TURN))
ONE_TURN: tuple[Action, ...] = (*_FIRST, Step(12))
NOT_STREAMED: tuple[Action, ...] = (
    *_OPEN, StartReq("r0", Prompt(length=10), 4, ignore_eos=True, stream=False, session=_TURN), Step(12),
)  # fmt: skip
CLOSED: tuple[Action, ...] = (
    *_OPEN, CloseSession("s0"), Step(), StartReq("r0", Prompt(length=10), 4, session=_TURN), Step(8),
)  # fmt: skip
TWO_TURNS: tuple[Action, ...] = (*_FIRST, Step(3), StartReq("r1", Prompt(1, 14), 4, session=_TURN), Step(12))
_CONTROLLER = "session.session_controller:SessionController"
_SESSION = "session.session_controller:Session"


@state("sessions:vanished", _OPEN, CONFIG)
def vanished(scheduler: Any) -> bool:
    """An open session is forgotten."""
    sessions = scheduler.session_controller.sessions
    known = bool(sessions)
    sessions.clear()
    return known


@state("sessions:lengths_out_of_order", ONE_TURN, CONFIG)
def out_of_order(scheduler: Any) -> bool:
    """The slot of a session has more committed tokens than allocated ones."""
    for slot in read_slots(scheduler):
        if scheduler.is_fully_idle():
            slot.record.kv_committed_len = slot.kv.allocated + 1
            return True
    return False


@call("sessions:served_without_session", "managers.scheduler:Scheduler", "handle_generate_request", CLOSED, CONFIG)
def served_all_the_same(original, scheduler, message, *args, **kwargs):
    """A turn of a session that is not open is served like any other request."""
    if message.session_params is not None and message.session_params.id not in scheduler.session_controller:
        triggered()
        message = copy.copy(message)
        message.session_params = None
    return original(scheduler, message, *args, **kwargs)


@call("sessions:open_unanswered", _CONTROLLER, "open", _OPEN, CONFIG, alone="control_replies: the reply is missing")
def silent_open(original, controller, message):
    """An open gets no reply."""
    from types import SimpleNamespace

    original(controller, message)
    triggered()
    return SimpleNamespace(success=False)


@call("sessions:left_open", _CONTROLLER, "close", _OPEN, CONFIG)
def never_closed(original, controller, message):
    """A session is not closed."""
    triggered()
