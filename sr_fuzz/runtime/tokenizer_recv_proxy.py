"""The proxy in front of the scheduler's socket from the tokenizer on the server engine: it observes arriving messages.

The scheduler receives messages in order as usual; the script can wait until a message of its own has arrived. Both IPC
codecs of SGLang are passed through unchanged: with pickle the scheduler calls ``recv_pyobj``, with msgpack ``recv``.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from sr_fuzz.sglang_api import messages

# Duration of one poll of the socket before ``give_up`` is called again; an arrival ends it at once.
_POLL_MS = 5
# Number of other arrivals that a time-out error names.
_NAMED_ARRIVALS = 5

# By name, so that the kind of a message does not depend on which release of SGLang, if any, is imported.
_WORK_REQS = {
    "TokenizedGenerateReqInput",
    "TokenizedEmbeddingReqInput",
    "BatchTokenizedGenerateReqInput",
    "BatchTokenizedEmbeddingReqInput",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Arrival:
    number: int
    raw: bytes
    message: Any


class ScriptedTokenizerRecvProxy:
    """Wraps the PULL socket ``recv_from_tokenizer``; all other attributes are those of the socket."""

    def __init__(self, *, underlying: zmq.Socket, decode: Callable[[bytes], Any] | None = None) -> None:
        """``decode`` turns a message's bytes into the object for predicates; the default is SGLang's own codec."""
        self._underlying = underlying
        self._decode = decode if decode is not None else messages.ipc_decoder()
        self._poller = zmq.Poller()
        self._poller.register(underlying, zmq.POLLIN)
        self._buffer: deque[_Arrival] = deque()
        self._later: list[_Arrival] = []
        # All that has arrived since `forget`, taken by the scheduler or not.
        self._arrivals: deque[_Arrival] = deque()
        self._count = 0
        self.taken: list[Any] | deque[Any] = []
        """Messages that the scheduler has received; the view empties the list."""
        self.work_reqs_seen = 0
        """Number of messages that bring work; a batched message counts once."""
        self.on_step: Callable[[], None] | None = None
        """Called at the start of each step, once late messages are due."""

    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that are not found here; without the guard a partly initialised proxy would
        # recurse.
        if name == "_underlying":
            raise AttributeError(name)
        return getattr(self._underlying, name)

    # -- what the scheduler calls ------------------------------------------------------------------------------

    def recv(self, flags: int = 0, copy: bool = True, track: bool = False) -> bytes:
        """Return the next message as bytes. Raises ``zmq.Again`` when there is none; never blocks."""
        return self._take(flags, "recv")

    def recv_pyobj(self, flags: int = 0) -> Any:
        """Return the next message, unpickled. Raises ``zmq.Again`` when there is none; never blocks."""
        return pickle.loads(self._take(flags, "recv_pyobj"))

    def poll(self, timeout: int | None = None, flags: int = zmq.POLLIN) -> int:
        """Poll the socket; messages that the proxy has already received count as readable."""
        self._drain()
        return zmq.POLLIN if self._buffer and flags & zmq.POLLIN else self._underlying.poll(timeout, flags)

    def _take(self, flags: int, method: str) -> bytes:
        self._drain()
        if self._buffer:
            arrival = self._buffer.popleft()
            self.taken.append(arrival.message)
            return arrival.raw
        if flags & zmq.NOBLOCK:
            raise zmq.Again()
        raise RuntimeError(f"{method} without NOBLOCK on the tokenizer's socket: a blocked scheduler takes no steps")

    # -- what the hook and the view call -----------------------------------------------------------------------

    def next_step(self) -> None:
        """Make late messages due. Called once at the start of each step, before the script acts."""
        self._buffer.extend(self._later)
        self._later.clear()
        if self.on_step is not None:
            self.on_step()

    @property
    def pending(self) -> int:
        """Number of messages that have arrived and that the scheduler has not received."""
        return len(self.not_received)

    @property
    def not_received(self) -> list[Any]:
        """The messages that have arrived and that the scheduler has not received."""
        self._drain()
        return [arrival.message for arrival in (*self._buffer, *self._later)]

    def stand_aside(self) -> None:
        """Only pass messages through from now on. No script is played here, so no list would ever be emptied."""
        self.taken = deque(maxlen=0)
        self._arrivals = deque(maxlen=0)

    # -- what the transport calls ------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return a point in the order of arrivals; all messages that have arrived so far are before it."""
        self._drain()
        return self._count

    def arrivals(self, since: int = 0) -> list[Any]:
        """The messages that have arrived after ``since`` (a `mark`), in order, with those that the scheduler has."""
        self._drain()
        return [arrival.message for arrival in self._arrivals if arrival.number > since]

    def forget(self) -> None:
        """Drop what `arrivals` returns."""
        self._arrivals.clear()

    def wait_until_arrived(
        self,
        predicate: Callable[[Any], bool],
        *,
        timeout_s: float,
        description: str = "matching message",
        give_up: Callable[[], str | None] | None = None,
        since: int | None = None,
    ) -> Any | None:
        """Wait for a message that satisfies ``predicate`` and return it; the scheduler still receives it.

        Only messages that arrive after ``since`` (a `mark`), or after the start of this call, are considered; after a
        mark also those that the scheduler has received already.
        ``give_up`` is called every few milliseconds; once it returns a reason, and a last check finds no message, None
        is returned. Raises ``TimeoutError`` after ``timeout_s`` seconds.
        """
        start = self._count if since is None else since
        looked = 0
        deadline = time.monotonic() + timeout_s
        last_look = False
        while True:
            self._drain()
            fresh = [arrival for arrival in self._arrivals if arrival.number > start]
            for arrival in fresh[looked:]:
                if predicate(arrival.message):
                    return arrival.message
            looked = len(fresh)
            if last_look:
                return None
            if give_up is not None and give_up() is not None:
                last_look = True
                continue
            left_ms = 1000 * (deadline - time.monotonic())
            if left_ms <= 0:
                raise TimeoutError(_no_arrival(description, timeout_s, fresh))
            self._poller.poll(min(_POLL_MS, left_ms))

    def delay(self, message: Any) -> None:
        """Delay a message that has arrived by one step; it then comes before the messages of that step."""
        for arrival in self._buffer:
            if arrival.message is message:
                self._buffer.remove(arrival)
                self._later.append(arrival)
                return
        raise ValueError(f"cannot delay a {type(message).__name__} that has not arrived or was taken already")

    def _drain(self) -> None:
        while True:
            try:
                raw = self._underlying.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            message = self._decode(raw)
            self._count += 1
            self.work_reqs_seen += type(message).__name__ in _WORK_REQS
            arrival = _Arrival(self._count, raw, message)
            self._buffer.append(arrival)
            self._arrivals.append(arrival)


def _no_arrival(description: str, timeout_s: float, others: list[_Arrival]) -> str:
    names = [type(arrival.message).__name__ for arrival in others]
    more = f" and {len(names) - _NAMED_ARRIVALS} more" if len(names) > _NAMED_ARRIVALS else ""
    instead = ", ".join(names[:_NAMED_ARRIVALS]) + more if names else "nothing"
    return f"no {description} arrived at the scheduler within {timeout_s:g} s; what arrived instead: {instead}"
