"""Reservation of a TCP port for a server, until the server listens on it.

A server binds its port up to a minute after the port was chosen. If the port is in the kernel's ephemeral range,
another process that asks the kernel for any port may get it in the meantime. SGLang's server then neither listens nor
ends, because its main process waits for its schedulers at exit.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

from sr_fuzz.script.errors import EngineError

HOST = "127.0.0.1"

# Below the ports that SGLang uses for its own process groups (22000 to 29999), and below the ephemeral range of Linux,
# which begins at 32768 by default.
_PORTS = range(10000, 22000)


def reserve(port: int | None = None, *, among: Sequence[int] = _PORTS) -> socket.socket:
    """Return a socket bound to ``port`` or to a free one of ``among``.

    It does not listen; close it to free the port.

    While it is open, only a process that sets ``SO_REUSEADDR``, as servers do, can bind the port. Raises `EngineError`
    when another process listens on ``port``, or when all of ``among`` are in use.
    """
    if port is not None:
        if type(port) is not int or not 0 < port < 65536:
            raise EngineError(f"port {port!r}: expected a number from 1 to 65535, or none for a free one")
        # Lingering connections of an earlier server do not matter.
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
    """Return a socket bound to the port, or the error why there is none."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    try:
        sock.bind((HOST, port))
    except OSError as error:
        sock.close()
        return error, None
    return None, sock
