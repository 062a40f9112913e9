"""Nobody on another machine can reach an engine: what its processes listen on is loopback or a private path."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Collection
from pathlib import Path

import psutil
import pytest

from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SCRIPT = Script(EngineConfig(), (StartReq("r0", Prompt(0, 20), 4), Step(3)))


def family() -> set[psutil.Process]:
    """The processes below this one: those of every engine that the test session has started."""
    return set(psutil.Process().children(recursive=True))


def ports(processes: Collection[psutil.Process]) -> list[str]:
    """The internet addresses that they listen on, for connections or for datagrams."""
    sockets = [each for process in processes for each in process.net_connections("inet") if not each.raddr]
    return [each.laddr.ip for each in sockets if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and each.laddr]


def others_may_enter(processes: Collection[psutil.Process]) -> list[str]:
    """The addresses and paths that they listen on and that somebody else can reach: there should be none."""
    paths = [each.laddr for process in processes for each in process.net_connections("unix") if each.laddr]
    # An abstract socket, whose name begins with @, has no permissions.
    open_paths = [path for path in paths if path.startswith("@") or not _is_private(Path(path))]
    return open_paths + [address for address in ports(processes) if not ipaddress.ip_address(address).is_loopback]


def _is_private(path: Path) -> bool:
    """Whether a folder above the path lets in its owner alone."""
    return any(folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o077 for folder in path.parents)


def test_this_test_sees_a_listener_on_all_interfaces_and_one_without_permissions():
    me = [psutil.Process()]
    with socket.socket() as port, socket.socket(socket.AF_UNIX) as name:
        port.bind(("0.0.0.0", 0))
        port.listen()
        name.bind(f"\0sr-fuzz-test-{os.getpid()}")
        name.listen()
        assert sorted(others_may_enter(me))[0] == "0.0.0.0" and len(others_may_enter(me)) == 2


def test_a_single_rank_without_http_listens_on_no_port(sr_engine):
    assert sr_engine.run(SCRIPT).ok
    others = family()
    with PersistentEngine(device="cpu") as engine:
        assert engine.run(SCRIPT).ok
        assert ports(family() - others) == []
        assert others_may_enter(family()) == []
    zygote = psutil.Process(sr_engine.zygote.pid)
    booted = zygote.children(recursive=True)
    assert booted and ports([zygote, *booted]) == []


@pytest.mark.parametrize("ranks", [{}, {"tp_size": 2}, {"pp_size": 2}, {"dp_size": 2}], ids=["one", "tp", "pp", "dp"])
def test_a_server_listens_on_loopback_alone(ranks):
    others = family()
    with ServerEngine(device="cpu") as engine:
        outcome = engine.run(Script(EngineConfig(max_total_tokens=256, **ranks), SCRIPT.actions))
        assert outcome.ok, outcome.report()
        assert others_may_enter(family()) == []
        several = any(name in ranks for name in ("tp_size", "pp_size"))
        assert several or len(ports(family() - others)) == 1, "ranks by themselves need none beside the HTTP port"
