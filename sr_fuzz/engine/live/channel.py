"""The ZMQ ``PAIR`` socket between the user's process and the hook in a live scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from sr_fuzz.engine.process_messages import encode
from sr_fuzz.script.errors import EngineError

# sun_path of unix(7) holds 108 bytes, the last of which is 0.
_MAX_PATH = 107


class Channel:
    """One end of the channel. The socket is in a folder that only its owner may enter, so no other user can connect."""

    def __init__(self, path: Path, *, bind: bool) -> None:
        if len(str(path)) > _MAX_PATH:
            raise EngineError(f"{path}: too long for a socket ({_MAX_PATH} bytes); set TMPDIR to a shorter folder")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        address = f"ipc://{path}"
        self._socket.bind(address) if bind else self._socket.connect(address)

    def send(self, message: Any) -> None:
        """Send a message. Raises ``zmq.Again`` when no process is connected at the other end."""
        self._socket.send(encode(message), zmq.NOBLOCK)

    def receive(self, wait_s: float | None = None) -> bytes | None:
        """Return the next message, undecoded; None when none arrives within ``wait_s`` seconds (None: no limit)."""
        if not self._socket.poll(None if wait_s is None else int(wait_s * 1000)):
            return None
        return self._socket.recv()

    def close(self, linger_s: float = 0.0) -> None:
        """Close the socket; messages that were sent get ``linger_s`` seconds to be delivered. Idempotent."""
        self._socket.close(linger=int(linger_s * 1000))
        self._context.term()
