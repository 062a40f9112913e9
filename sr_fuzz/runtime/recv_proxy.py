"""A mock of the tokenizer's socket on the local engine: a queue of messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import zmq


class LocalRecvProxy:
    """The queue that the scheduler's receiver reads. Messages put before a step arrive in that step, in order."""

    def __init__(self) -> None:
        self._queue: deque[Any] = deque()
        self._later: list[Any] = []
        self.taken: list[Any] = []
        """Messages that the scheduler has received; the view empties the list."""
        self.on_step: Callable[[], None] | None = None
        """Called at the start of each step, once late messages are due."""

    def put(self, message: Any) -> None:
        """Make a message arrive in the coming step."""
        self._queue.append(message)

    def put_later(self, message: Any) -> None:
        """Make a message arrive one step later, before the messages that are put then."""
        self._later.append(message)

    def next_step(self) -> None:
        """Make late messages due. Called once at the start of each step, before the script acts."""
        self._queue.extend(self._later)
        self._later.clear()
        if self.on_step is not None:
            self.on_step()

    @property
    def pending(self) -> int:
        return len(self._queue) + len(self._later)

    def recv_pyobj(self, flags: int = 0) -> Any:
        """Return the next message. The receiver polls until this raises ``zmq.Again``, as a socket does."""
        if not self._queue:
            raise zmq.Again()
        message = self._queue.popleft()
        self.taken.append(message)
        return message


class SilentRecvProxy:
    """A mock of the RPC socket, on which no call ever arrives."""

    def recv_pyobj(self, flags: int = 0) -> Any:
        raise zmq.Again()
