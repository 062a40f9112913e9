"""Faults of sessions: the KV that they keep between two turns, and the turns that they accept."""

from __future__ import annotations

from unittest.mock import patch

import torch

from sr_fuzz.faults import fault, triggered, wrapped

_SETS = ("sessions",)


@fault(
    "unclosed_slot", stands_for="a session's KV leaked when it is closed in a turn", expected=("sessions",), sets=_SETS
)
def unclosed_slot():
    """A session that was closed while one of its turns ran is removed without freeing the KV that it holds."""
    from sglang.srt.session.session_controller import SessionController

    put_off: set[str] = set()

    def close(original, controller, session_id):
        if session_id not in put_off:
            original(controller, session_id)
            if session_id in controller.sessions:
                put_off.add(session_id)
            return
        with patch.object(controller.tree_cache, "release_session", lambda session_id: triggered()):
            original(controller, session_id)

    return wrapped(SessionController, "_close", close)


@fault(
    "closed_under_turn", stands_for="a session's KV freed while a turn runs on it", expected=("kv_pages",), sets=_SETS
)
def closed_under_turn():
    """Closing a session frees its last page at once, even while one of its turns is running."""
    from sglang.srt.session.session_controller import SessionController

    from sr_fuzz.view.sessions import read_slots

    def close(original, controller, session_id):
        original(controller, session_id)
        session = controller.sessions.get(session_id)
        if session is None or not session._inflight:
            return
        tree = controller.tree_cache
        for slot in read_slots(_Holder(tree)):
            if slot.session_id == session_id and slot.kv.allocated > slot.kv.protected:
                triggered()
                row = tree.req_to_token_pool.req_to_token[slot.kv.row]
                tree.token_to_kv_pool_allocator.free(row[slot.kv.allocated - 1 : slot.kv.allocated].to(torch.int64))

    return wrapped(SessionController, "_close", close)


class _Holder:
    """The attributes of a scheduler that `read_slots` needs."""

    def __init__(self, tree_cache) -> None:
        self.tree_cache = tree_cache


@fault(
    "cut_history",
    stands_for="a session's history cut at the wrong place after an abort",
    expected=("oracle_output", "kv_content"),
    sets=_SETS,
)
def cut_history():
    """An aborted turn also removes the last token of the previous turn."""
    from sglang.srt.session.session_controller import Session

    def abort(original, session):
        original(session)
        if session.committed_origin_len:
            triggered()
            session.committed_origin_len -= 1

    return wrapped(Session, "abort_req", abort)


@fault(
    "dead_session",
    stands_for="a session that takes no turn any more after an abort",
    expected=("sessions",),
    sets=_SETS,
)
def dead_session():
    """An aborted turn counts as running for ever."""
    from sglang.srt.session.session_controller import Session

    def abort(original, session):
        triggered()

    return wrapped(Session, "abort_req", abort)
