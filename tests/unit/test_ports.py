"""A server's port stays reserved from the moment it is chosen until the server listens."""

from __future__ import annotations

import socket

import pytest

from sr_fuzz.engine.live.ports import HOST, reserve
from sr_fuzz.engine.live.server import ScriptedHttpServer
from sr_fuzz.script.errors import EngineError


def listener(port: int, *, reuse: bool) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    sock.bind((HOST, port))
    sock.listen()
    return sock


def test_while_a_port_is_reserved_only_a_server_can_have_it():
    with reserve() as kept:
        port = kept.getsockname()[1]
        with pytest.raises(OSError):
            listener(port, reuse=False)
        with listener(port, reuse=True), socket.create_connection((HOST, port), timeout=5):
            pass


def test_two_servers_do_not_get_the_same_port():
    with reserve() as first:
        with reserve() as second:
            ports = [sock.getsockname()[1] for sock in (first, second)]
            with pytest.raises(EngineError, match=f"each port of {HOST} from {ports[0]} to {ports[1]} is taken"):
                reserve(among=ports)
        with reserve(among=ports) as again:
            assert again.getsockname()[1] == ports[1]


@pytest.mark.parametrize("port", [0, -1, 70000, "30000", True])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(EngineError, match=f"port {port!r}: expected a number from 1 to 65535"):
        reserve(port)


def test_a_server_on_a_port_that_is_taken_is_refused_at_once():
    with reserve() as kept, listener(kept.getsockname()[1], reuse=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineError, match=f"no server can listen on port {port} of {HOST}: .*in use"):
            ScriptedHttpServer.start(port=port)
