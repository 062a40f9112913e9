"""Sessions: what SGLang keeps for them, and what a client knows of them.

Streaming sessions keep a request row and its KV between two turns, in a *slot*. The ownership differs by release:

* up to 0.5.18 the slot has a copy of the bookkeeping, which becomes out of date while a turn runs;
* from 0.5.19 slot and turn share one record; a first turn owns it until it ends;
* from 0.5.22 the slot also has a first turn's record, from the allocation of its row on.

So in all releases a live turn that uses its slot's row tells best what is held; otherwise the slot does.

Source: ``session/streaming_session.py``, ``session/session_controller.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sr_fuzz.runtime.recorder import Stream
from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.incoming import Received
from sr_fuzz.sglang_api.requests import Request


@dataclass(slots=True)
class SlotView:
    """The slot of a streaming session that holds KV."""

    session_id: str
    kv: request_state.KvState
    record: Any
    """The KV record, from 0.5.19 on; None before."""
    raw: Any
    """SGLang's own object."""

    @property
    def lock(self) -> Any:
        """Handle of the tree node up to which the slot has locked the tree, or None."""
        if hasattr(self.raw, "lock"):
            return None if self.raw.lock is None else self.raw.lock.node
        return self.raw.last_node

    def lends_to(self, req: Request) -> bool:
        """Whether the request uses this slot's row, as a turn of its session."""
        if self.record is not None:
            return req.has_record(self.record)
        return req.session_id == self.session_id and req.row == self.kv.row


def read_slots(scheduler: Any) -> list[SlotView]:
    """The slots that hold KV."""
    tree = scheduler.tree_cache
    # The slots are kept within the unified tree, or by a wrapper around another cache.
    holder = getattr(tree, "session", tree)
    slots = getattr(holder, "slots", None) or {}
    views = [_read_slot(session_id, slot) for session_id, slot in slots.items()]
    return [view for view in views if view is not None]


def _read_slot(session_id: str, slot: Any) -> SlotView | None:
    if hasattr(slot, "req_pool_idx"):
        if slot.kv is None:
            return None
        lens = (slot.cache_protected_len, slot.kv_committed_len, slot.kv.kv_allocated_len)
        kv = request_state.KvState(int(slot.req_pool_idx), *map(int, lens))
        return SlotView(session_id, kv, None, slot)
    found = request_state.kv_of_record(slot.kv)
    if found is None:
        return None
    return SlotView(session_id, found, slot.kv, slot)


def open_sessions(scheduler: Any) -> dict[str, Any]:
    """SGLang's sessions by id, including those that it will close once a turn has ended."""
    return scheduler.session_controller.sessions


def kept_tokens(scheduler: Any, session_id: str) -> list[int]:
    """The tokens that a streaming session records: the prompt and output of its last turn."""
    session = open_sessions(scheduler).get(session_id)
    nodes = list(session.req_nodes.values()) if session is not None else []
    return [*nodes[-1].req.origin_input_ids, *nodes[-1].req.output_ids] if nodes else []


# -- what a client knows ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Turn:
    """A request of a session as its client knows it: everything in it was sent or received."""

    rid: str
    params: Any
    step: int
    prompt: list[int]
    """The history that it continues and its own tokens."""
    max_new_tokens: int
    alone: bool
    """Whether no other turn of its session was unanswered when it arrived."""
    was_open: bool
    """Whether its session was open and not being closed when it arrived."""
    streaming: bool


@dataclass(slots=True)
class _Session:
    streaming: bool
    timed: bool
    closing: bool = False
    turns: list[Turn] = field(default_factory=list)


class Ledger:
    """Follows the messages that the scheduler takes and the answers that it sends, step by step."""

    def __init__(
        self,
        stream_of: Callable[[str], Stream | None],
        output_of: Callable[[str], list[int]],
        pause_drains: bool = False,
    ) -> None:
        """``output_of`` gives ``output_ids`` of a request that was cut short: it may have more tokens than were sent.

        ``pause_drains``: a retracting pause processes the result in flight, as under overlap; for the messages after
        the pause, a turn that ends by that result has ended.
        """
        self._pause_drains = pause_drains
        self._stream_of = stream_of
        self._output_of = output_of
        self._sessions: dict[str, _Session] = {}
        self.turns: dict[str, Turn] = {}
        """Requests of sessions by request id."""
        self.opens = 0
        """Number of open messages taken; each gets one reply."""
        self.replaced: set[str] = set()
        """Requests that a later request of their session may have replaced, which aborts them."""
        self.vanished: str | None = None
        """A session that is gone although it was not closed and had no timeout."""

    @property
    def open(self) -> list[str]:
        """Ids of the sessions that SGLang has, including those that it is about to close."""
        return list(self._sessions)

    def take(self, messages: Iterable[Received], step: int, existing: Iterable[str]) -> None:
        """Record one step's messages, in order; ``existing`` are the sessions that SGLang has when the step ends."""
        before = set(self._sessions)
        closed: set[str] = set()
        ended_before = step
        for message in messages:
            if message.retracts and self._pause_drains:
                ended_before = step + 1
            if message.call == "open_session":
                self.opens += 1
                if message.session_id not in self._sessions:
                    self._sessions[message.session_id] = _Session(message.opens_streaming, message.opens_timed)
            elif message.call == "close_session":
                if message.session_id in self._sessions:
                    self._sessions[message.session_id].closing = True
                    closed.add(message.session_id)
            elif message.session_params is not None:
                self._take_turn(message, step, ended_before)
        self._forget_closed(set(existing), before)

    def _forget_closed(self, existing: set[str], before: set[str]) -> None:
        for session_id in list(self._sessions):
            if session_id not in existing:
                session = self._sessions.pop(session_id)
                if not session.closing and not session.timed:
                    self.vanished = session_id

    def _take_turn(self, message: Received, step: int, ended_before: int) -> None:
        params = message.session_params
        session = self._sessions.get(params.id)
        tokens = list(message.input_ids)
        turn = Turn(
            rid=message.rid,
            params=params,
            step=step,
            prompt=tokens,
            max_new_tokens=message.max_new_tokens,
            alone=session is not None and not any(self._unanswered(turn, step) for turn in session.turns),
            was_open=session is not None and not session.closing,
            streaming=session is not None and session.streaming,
        )
        if session is not None and turn.was_open:
            turn.prompt = self._history(session, params, ended_before) + tokens
            if params.replace:
                self.replaced.update(other.rid for other in session.turns)
            session.turns.append(turn)
        self.turns.setdefault(message.rid, turn)

    def _history(self, session: _Session, params: Any, step: int) -> list[int]:
        if session.streaming:
            parent = self._last_finished(session, step)
        else:
            parent = next((turn for turn in session.turns if turn.rid == params.rid), None)
        if parent is None:
            return []
        history = list(parent.prompt)
        if not params.drop_previous_output:
            history += self._tail(parent, step)
        return history[: params.offset] if params.offset else history

    def last_finished(self, session_id: str, step: int) -> Turn | None:
        """The last turn of a streaming session that ran to its end before ``step``."""
        session = self._sessions.get(session_id)
        return self._last_finished(session, step) if session is not None else None

    def history_len(self, turn: Turn, step: int) -> int:
        """Number of tokens of a turn that has ended: its prompt and its output."""
        return len(turn.prompt) + len(self._tail(turn, step))

    def busy(self, session_id: str, step: int) -> bool:
        """Whether a turn of the session was unanswered before ``step``."""
        session = self._sessions.get(session_id)
        return session is not None and any(self._unanswered(turn, step) for turn in session.turns)

    def _last_finished(self, session: _Session, step: int) -> Turn | None:
        ended = [(end, turn) for turn in session.turns if (end := self._natural_end(turn, step)) is not None]
        return max(ended, key=lambda pair: pair[0])[1] if ended else None

    def _natural_end(self, turn: Turn, step: int) -> int | None:
        """The step in which the turn ended by length or at a stop, if before ``step``; else None."""
        stream = self._stream_of(turn.rid)
        for delta in stream.deltas if stream is not None else ():
            if not delta.aborted and (delta.finish or {}).get("type") in ("length", "stop") and delta.step < step:
                return delta.step
        return None

    def _unanswered(self, turn: Turn, step: int) -> bool:
        stream = self._stream_of(turn.rid)
        return stream is None or not any(delta.step < step for delta in stream.finishes)

    def _tail(self, turn: Turn, step: int) -> list[int]:
        stream = self._stream_of(turn.rid)
        sent = stream.tokens if stream is not None else []
        tokens = sent if self._natural_end(turn, step) is not None else self._output_of(turn.rid)
        return list(tokens[: turn.max_new_tokens])
