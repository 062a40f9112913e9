"""Sessions accept and refuse turns for cause, and keep only what they may."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, names

from sr_fuzz.sglang_api.outputs import OPEN_REPLY
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.sessions import Turn
from sr_fuzz.view.view import SchedulerView, name_of

# SGLang's message when a streaming session has a turn under way; the finish reason carries it to the client.
_HAS_ACTIVE = "already has an active request"


class Sessions(Invariant):
    """A session serves one client's history, and nothing of it is left after the session.

    Formula: each open gets one reply. A turn that arrives for a session that is not open, or is being closed, ends as
    aborted. A turn of a streaming session is refused because another is under way only if another turn was unanswered
    when it arrived, and at most one turn that was not refused is unanswered at any time. A slot belongs to an open
    session; between two turns ``protected <= committed <= allocated``, ``committed`` is at most the length of the last
    turn that ran to its end (its prompt and output), and without such a turn there is no slot. A session without a
    timeout does not go away unless it was closed. After the epilogue has closed all sessions, no session is left, nor a
    slot.

    Source: ``Session.create_req``, ``finish_req`` and ``abort_req`` and ``SessionController`` in
    ``session/session_controller.py``; ``StreamingSession`` in ``session/streaming_session.py``.
    Covers: plain and streaming sessions of one data-parallel replica. That a turn continues its own history, and
    nothing else, is checked by `OracleOutput` and `KvContent`; what a slot owns, by `KvPages`, `RequestRows` and
    `TreeLocks`.

    Known false alarms: a flush takes the KV of every slot, and the next turn prefills its history again: having less is
    legal. A retracted turn leaves its KV in the slot while it waits; it counts as a turn under way. A refused turn runs
    its one token on a slot of its own, possibly after the session was closed; slots with a turn on them are left out.
    """

    name = "sessions"
    family = "memory"

    def __init__(self) -> None:
        self._refusals_seen: set[str] = set()

    def check(self, view: SchedulerView) -> Problem | None:
        if not view.sessions.opens and not view.sessions.turns:
            return None
        return self._gone(view) or self._slots(view) or self._two_at_once(view) or self._answers(view)

    # -- what is kept ------------------------------------------------------------------------------------------

    @staticmethod
    def _gone(view: SchedulerView) -> Problem | None:
        if view.sessions.vanished is None:
            return None
        return Problem("vanished", f"session {name_of(view.sessions.vanished)} is gone, although no client closed it")

    def _slots(self, view: SchedulerView) -> Problem | None:
        step = view.now.step + 1
        alive = [req for req in view.requests if req.rid in view.now.placed and not view.answered(req.rid)]
        for slot in view.now.session_slots:
            name = name_of(slot.session_id)
            if any(slot.lends_to(req) for req in alive):
                continue
            if slot.session_id not in view.open_sessions:
                return Problem(
                    "slot_without_session",
                    f"session {name} is closed, its slot still holds row {slot.kv.row} and {slot.kv.allocated} tokens",
                )
            if view.sessions.busy(slot.session_id, step):
                continue
            kv = slot.kv
            if not kv.protected <= kv.committed <= kv.allocated:
                return Problem(
                    "lengths_out_of_order",
                    f"session {name}: protected {kv.protected}, committed {kv.committed}, allocated {kv.allocated}",
                )
            last = view.sessions.last_finished(slot.session_id, step)
            if last is None:
                return Problem(
                    "kv_without_history",
                    f"session {name} keeps {kv.committed} tokens, but no turn of it has run to its end",
                )
            known = view.sessions.history_len(last, step)
            if kv.committed > known:
                return Problem(
                    "kv_beyond_history",
                    f"session {name} keeps {kv.committed} tokens, its last turn {name_of(last.rid)} ended with {known}",
                )
        return None

    # -- what is served ----------------------------------------------------------------------------------------

    def _two_at_once(self, view: SchedulerView) -> Problem | None:
        alive: dict[str, list[str]] = {}
        placed = view.now.placed
        accepted = {req.rid: req for req in view.requests if not _is_refused(req)}
        for rid in view.unanswered():
            turn = view.sessions.turns.get(rid)
            if turn is not None and turn.streaming and turn.was_open and rid in placed and rid in accepted:
                alive.setdefault(turn.params.id, []).append(name_of(rid))
        for session_id, turns in alive.items():
            if len(turns) > 1:
                return Problem(
                    "two_turns_at_once",
                    f"streaming session {name_of(session_id)} has {len(turns)} turns under way: {names(turns)}",
                )
        return None

    def _answers(self, view: SchedulerView) -> Problem | None:
        for rid, delta in view.recorder.sent_in_step:
            turn = view.sessions.turns.get(rid)
            finish = delta.finish or {}
            if turn is None or not finish:
                continue
            problem = self._ending(turn, finish)
            if problem is not None:
                return problem
        return None

    @staticmethod
    def _ending(turn: Turn, finish: dict) -> Problem | None:
        name, session = name_of(turn.rid), name_of(turn.params.id)
        if not turn.was_open and finish.get("type") != "abort":
            return Problem(
                "served_without_session",
                f"{name} came when session {session} was not open, and ended by {finish.get('type')}",
            )
        if turn.alone and turn.was_open and _HAS_ACTIVE in str(finish.get("message")):
            return Problem(
                "refused_without_cause",
                f"{name} was refused because session {session} has an active request, but every turn before it had "
                "been answered when it came",
            )
        return None

    # -- the end -----------------------------------------------------------------------------------------------

    def check_end(self, view: SchedulerView) -> Problem | None:
        opens = sum(reply.kind == OPEN_REPLY for _, reply in view.recorder.replies)
        if opens != view.sessions.opens:
            return Problem("open_unanswered", f"{view.sessions.opens} opens were taken, {opens} replies were sent")
        left = [name_of(session_id) for session_id in view.open_sessions]
        if left and not view.unanswered():
            return Problem("left_open", f"sessions {names(left)} are still there, closed and with no turn under way")
        return None


def _is_refused(req: Request) -> bool:
    """Whether SGLang refused the request on arrival (``Req.set_finish_with_abort``): it then runs one dummy token."""
    return list(req.origin_input_ids) == [0]
