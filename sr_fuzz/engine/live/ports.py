"""A TCP port for a server to listen on, kept for it until it does.

A server binds its port a minute after it was told which. With a port from the kernel's ephemeral range, a process that
asked the kernel for any port could have it by then; SGLang's server then neither listens nor ends: its main process
waits at its exit for its schedulers.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

from sr_fuzz.script.errors import EngineError

HOST = "127.0.0.1"

# Below what SGLang takes for its own process groups (22000 to 29999) and below Linux' ephemeral range, which begins at
# 32768 where nobody has changed it.
_PORTS = range(10000, 22000)


def reserve(port: int | None = None, *, among: Sequence[int] = _PORTS) -> socket.socket:
    """A socket bound to ``port``, or to one of ``among`` that nobody has, without listening: close it to give it up.

    While it is open, only who sets ``SO_REUSEADDR``, as servers do, can bind the port. Raises `EngineError` when
    another process listens on ``port``, or has all of ``among``.
    """
    if port is not None:
        if type(port) is not int or not 0 < port < 65536:
            raise EngineError(f"port {port!r}: expected a number from 1 to 65535, or none for a free one")
        # Connections of an earlier server that linger in the kernel are in nobody's way.
        taken, kept = _bound(port, reuse=True)
        if kept is None:
            raise EngineError(f"no server can listen on port {port} of {HOST}: {taken}; leave out port= for a free one")
        return kept
    for candidate in random.Random().sample(among, len(among)):
        _, kept = _bound(candidate, reuse=False)
        if kept is not None:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return kept
    raise EngineError(f"no server can be started: each port of {HOST} from {among[0]} to {among[-1]} is taken")


def _bound(port: int, *, reuse: bool) -> tuple[OSError | None, socket.socket | None]:
    """A socket bound to the port, or why there is none."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    try:
        sock.bind((HOST, port))
    except OSError as error:
        sock.close()
        return error, None
    return None, sock
