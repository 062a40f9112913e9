"""Fixes of known bugs in sessions."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.faults.patching import prefix_len


@fault("refused_turn", stands_for="session-turns-at-once.md, session-two-first-turns.md", expected=())
def refused_turn():
    """A refused turn is detached from its session at once, so it cannot clear the flag of the running turn."""
    from sglang.srt.session.session_controller import Session

    def create_req(original, session, *args, **kwargs):
        req = original(session, *args, **kwargs)
        # The prompt that `Req.set_finish_with_abort` sets.
        if session.streaming and list(req.origin_input_ids) == [0]:
            triggered()
            req.session = None
        return req

    return wrapped(Session, "create_req", create_req)


@fault("retracted_turn", stands_for="session-retracted-turn.md", expected=())
def retracted_turn():
    """A retracted turn keeps its KV, as an aborted turn does, and still counts as running."""
    from sglang.srt.managers.schedule_batch import FINISH_ABORT
    from sglang.srt.session.streaming_session import StreamingSession

    def cache(original, sessions, req, *args, **kwargs):
        session = req.session
        if session is None or not session.streaming or req.finished():
            return original(sessions, req, *args, **kwargs)
        triggered()
        req.finished_reason = FINISH_ABORT()
        try:
            return original(sessions, req, *args, **kwargs)
        finally:
            req.finished_reason = None
            session._inflight = True

    return wrapped(StreamingSession, "try_cache_finished_req", cache)


@fault("replaced_all", stands_for="session-replaced.md", expected=())
def replaced_all():
    """Replacing all turns of a plain session iterates over a copy of them."""
    from sglang.srt.session.session_controller import Session

    def create_req(original, session, req, *args, **kwargs):
        params = req.session_params
        if not session.streaming and params.replace and params.rid is None:
            for node in list(session.req_nodes.values()):
                if node.req.rid in session.req_nodes:
                    triggered()
                    node.clear(session.req_nodes)
        return original(session, req, *args, **kwargs)

    return wrapped(Session, "create_req", create_req)


@fault("eos_with_history", stands_for="session-without-prefix-cache.md", expected=())
def eos_with_history():
    """Without a prefix tree a turn with a history is admitted like a turn without ``ignore_eos``."""
    from sglang.srt.managers.schedule_policy import PrefillAdder

    def add(original, adder, req, *args, **kwargs):
        if not (req.sampling_params.ignore_eos and adder.tree_cache.disable and prefix_len(req)):
            return original(adder, req, *args, **kwargs)
        triggered()
        req.sampling_params.ignore_eos = False
        try:
            return original(adder, req, *args, **kwargs)
        finally:
            req.sampling_params.ignore_eos = True

    return wrapped(PrefillAdder, "add_one_req", add)


@fault("waiting_turn_aborted", stands_for="session-dead-after-abort.md", expected=())
def waiting_turn_aborted():
    """A turn that is aborted while it waits no longer counts as running."""
    from sglang.srt.managers.scheduler import Scheduler

    def abort(original, scheduler, *args, **kwargs):
        waited = list(scheduler.waiting_queue)
        original(scheduler, *args, **kwargs)
        for req in waited:
            if req.session is not None and req.session.streaming and req not in scheduler.waiting_queue:
                triggered()
                req.session.abort_req()

    return wrapped(Scheduler, "abort_request", abort)
