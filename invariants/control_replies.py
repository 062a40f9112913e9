"""Each control request gets exactly one reply."""

from __future__ import annotations

from collections import Counter

from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.sglang_api.messages import CONTROLS
from sr_fuzz.sglang_api.outputs import FLUSH_REPLY
from sr_fuzz.view.view import SchedulerView

# Control messages to which the sender awaits a reply (`_COMMUNICATOR_SPECS` in managers/tokenizer_control_mixin.py, and
# those of sessions): the messages that scripts send, and those that the tokenizer manager sends for other callers.
REPLIES: dict[str, str] = {
    **{control.message: control.reply for control in CONTROLS.values() if control.reply is not None},
    "GetInternalStateReq": "GetInternalStateReqOutput",
    "SetInternalStateReq": "SetInternalStateReqOutput",
    "UpdateWeightVersionReqInput": "UpdateWeightVersionReqOutput",
}


class ControlReplies(Invariant):
    """A caller that waits for the reply to a control request gets exactly one.

    Formula: for each kind of message to which a reply is awaited, as many replies of its kind are sent in a step as
    such messages are taken in it; a flush with a time-out may be answered later, and at most once.

    Source: ``Scheduler.process_input_requests`` sends what the handler returns, in the step that took the message;
    ``SchedulerFlushWrapper`` keeps a flush with a ``timeout_s`` and answers it itself. The tokenizer manager's
    ``FanOutCommunicator`` waits without a limit: a missing reply blocks all later calls of its kind, and a surplus
    reply goes to the next caller.
    Covers: the messages in `REPLIES`; generate requests are checked by `Streams` and `Liveness`.

    Known false alarms: none.
    """

    name = "control_replies"
    family = "lifecycle"

    def __init__(self) -> None:
        self._owed: Counter[str] = Counter()
        self._seen = 0

    def check(self, view: SchedulerView) -> Problem | None:
        for message in view.received:
            reply = REPLIES.get(message.kind)
            if reply is not None:
                self._owed[reply] += 1
        for _, reply in view.recorder.replies[self._seen :]:
            if reply.kind not in REPLIES.values():
                continue
            self._owed[reply.kind] -= 1
            if self._owed[reply.kind] < 0:
                return Problem("unasked_reply", f"a {reply.kind} was sent, all requests of its kind have their reply")
        self._seen = len(view.recorder.replies)
        owed = +self._owed
        if self._flush_deferred(view):
            owed[FLUSH_REPLY] -= 1
            owed = +owed
        if owed:
            shown = ", ".join(f"{count} {kind}" for kind, count in owed.items())
            return Problem("unanswered", f"the step that took the request sent no reply: {shown}")
        return None

    @staticmethod
    def _flush_deferred(view: SchedulerView) -> bool:
        """Whether a flush with a time-out is deferred until the engine is idle; there is at most one."""
        return view.flush_deferred
