"""A socket pair between a campaign and one of its processes: messages with their length before them."""

from __future__ import annotations

import select
import socket
import struct

_LENGTH = struct.Struct(">I")
_CHUNK = 1 << 16


class Channel:
    """The end of a process: it waits for what it reads and writes."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, data: bytes) -> None:
        """Raises `OSError` where the other end is gone."""
        self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> bytes | None:
        """Wait for a message; None where the other end is gone."""
        head = self._exactly(_LENGTH.size)
        return self._exactly(_LENGTH.unpack(head)[0]) if head is not None else None

    def has_more(self) -> bool:
        """Whether something can be read now, the end of the other process included."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                more = self._socket.recv(min(_CHUNK, size - len(data)))
            except ConnectionError:
                return None
            if not more:
                return None
            data += more
        return bytes(data)


class Reader:
    """Puts messages together from the pieces that a socket gives."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are whole with that piece."""
        self._data += data
        whole: list[bytes] = []
        while len(self._data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._data)
            if len(self._data) < _LENGTH.size + size:
                break
            whole.append(bytes(self._data[_LENGTH.size : _LENGTH.size + size]))
            del self._data[: _LENGTH.size + size]
        return whole
