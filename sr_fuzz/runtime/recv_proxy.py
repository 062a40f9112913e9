"""What stands for the tokenizer's socket on the local engine: a queue of messages, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import zmq


class LocalRecvProxy:
    """Serves the scheduler's receiver. Messages put before a step arrive in that step, in order."""

    def __init__(self) -> None:
        self._queue: deque[Any] = deque()
        self._later: list[Any] = []
        self.taken: list[Any] = []
        """Messages the scheduler has taken; whoever counts steps empties it."""
        self.on_step: Callable[[], None] | None = None
        """Called at the head of each step, once late messages are due."""

    def put(self, message: Any) -> None:
        """Arrives in the coming step."""
        self._queue.append(message)

    def put_later(self, message: Any) -> None:
        """Arrives one step later, before anything that is put then."""
        self._later.append(message)

    def next_step(self) -> None:
        """Called once at the head of each step, before the script acts: late messages become due."""
        self._queue.extend(self._later)
        self._later.clear()
        if self.on_step is not None:
            self.on_step()

    @property
    def pending(self) -> int:
        return len(self._queue) + len(self._later)

    def recv_pyobj(self, flags: int = 0) -> Any:
        """The receiver polls with ``NOBLOCK`` until this raises ``zmq.Again``, as a socket would."""
        if not self._queue:
            raise zmq.Again()
        message = self._queue.popleft()
        self.taken.append(message)
        return message


class SilentRecvProxy:
    """The RPC socket, on which nobody ever calls."""

    def recv_pyobj(self, flags: int = 0) -> Any:
        raise zmq.Again()
