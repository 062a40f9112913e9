"""A process of a campaign as the campaign sees it: it starts it, sends to it, reads from it, ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from sr_fuzz.campaign.workers.channel import Channel, Reader
from sr_fuzz.campaign.workers.codec import Codec
from sr_fuzz.campaign.workers.messages import FromProcess, ToProcess
from sr_fuzz.lifetime import with_parent

_CHUNK = 1 << 18


class Handle(Protocol):
    """What is needed of a process; a `subprocess.Popen` is one."""

    pid: int

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


StartProcess = Callable[[socket.socket, str], Handle]
"""Starts a process, by its end of a socket pair and its name; it does `sr_fuzz.campaign.workers.process.serve`."""


def start_process(end: socket.socket, name: str) -> Handle:
    """Start a Python process, in a session of its own: a Ctrl-C at the terminal is for the campaign."""
    command = with_parent.command("-m", "sr_fuzz.campaign.workers", str(end.fileno()), name)
    return subprocess.Popen(command, pass_fds=[end.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)


class Worker:
    """One process. It ends when its channel is closed, and with the campaign, however that ends."""

    def __init__(self, name: str, setup: ToProcess, start: StartProcess = start_process) -> None:
        """``name``: as people read it, such as ``searcher 1``."""
        self.name = name
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = start(theirs, name)
        self.socket = ours
        self._reader = Reader()
        self._inbox: deque[FromProcess] = deque()
        self.is_ready = False
        self._codec = Codec()
        self.send(setup)
        self._codec = Codec.after(setup)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: ToProcess) -> None:
        """Send a message; one to a process that has ended is lost, which `receive` tells."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            Channel(self.socket).send(self._codec.encode(message))

    def receive(self) -> bool:
        """Wait until something has come, for `messages`; returns whether the process is still there."""
        try:
            data = self.socket.recv(_CHUNK)
        except ConnectionError:
            return False
        self._inbox += map(self._codec.decode_from, self._reader.feed(data))
        return bool(data)

    def messages(self) -> Iterator[FromProcess]:
        """Give each message that has come once. What is left after an interrupt is given the next time."""
        while self._inbox:
            yield self._inbox.popleft()

    def interrupt(self) -> None:
        """Let the follower write what it is following up as it is, and end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGINT)

    def end(self, patience_s: float) -> str:
        """Close the channel and wait for the process, which is killed where that takes too long.

        Returns how it ended, as people read it.
        """
        self.socket.close()
        try:
            status = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return f"signal {-status}" if status < 0 else f"status {status}"
