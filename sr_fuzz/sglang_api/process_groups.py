"""Process groups that nobody outside an engine can reach.

SGLang asks torch for a TCP store, which listens on every interface and knows no password, and Gloo listens on the
interface that the machine's name stands for. All ranks of an engine are on one machine, so a store in memory, or in a
file of the private folder, and the loopback interface serve as well. A single rank needs no listener at all.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_INTERFACES = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Environment of the libraries behind torch's groups: the interface that they listen on."""


@contextmanager
def private(folder: Path | None = None) -> Iterator[None]:
    """While the context is active, process groups are made as `keep_private` says.

    The variables that name the interface stay set, since a library may read them later.
    """
    from torch import distributed

    before = distributed.init_process_group, distributed.new_group
    keep_private(folder)
    try:
        yield
    finally:
        distributed.init_process_group, distributed.new_group = before


def keep_private(folder: Path | None = None) -> None:
    """Make no process group of this process reachable from outside; call it before SGLang makes them.

    ``folder``: the private folder of an engine with several ranks, in which they meet; the same for all of them.
    """
    from torch import distributed

    os.environ.update(_INTERFACES)
    distributed.init_process_group = _without_listeners(_with_store(distributed.init_process_group, folder))
    distributed.new_group = _without_listeners(distributed.new_group)


def _with_store(init: Callable[..., Any], folder: Path | None) -> Callable[..., Any]:
    @functools.wraps(init)
    def with_store(*args: Any, init_method: str | None = None, **options: Any) -> Any:
        if init_method is None or not init_method.startswith("tcp:"):
            return init(*args, init_method=init_method, **options)
        return init(*args, store=_store(init_method, options["world_size"], folder), **options)

    return with_store


def _store(init_method: str, world_size: int, folder: Path | None) -> Any:
    from torch import distributed

    if world_size == 1:
        return distributed.HashStore()
    assert folder is not None, "several ranks meet in a private folder"
    # Data-parallel replicas have groups, and so stores, of their own; SGLang gives each of them another port.
    return distributed.FileStore(str(folder / f"ranks-{urlsplit(init_method).port}"), world_size)


def _without_listeners(create: Callable[..., Any]) -> Callable[..., Any]:
    """Close what listens for other ranks where there are none."""

    @functools.wraps(create)
    def create_without_listeners(*args: Any, **options: Any) -> Any:
        from torch import distributed

        before = _listening()
        group = create(*args, **options)
        if distributed.get_world_size() == 1:
            for fd in _listening() - before:
                _stop_listening(fd)
        return group

    return create_without_listeners


def _listening() -> set[int]:
    """Return the descriptors of this process that listen on a TCP port."""
    import psutil

    return {each.fd for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_LISTEN}


def _stop_listening(fd: int) -> None:
    """Put an unbound socket in the place of a listening one, whose owner closes the descriptor at its own time."""
    with socket.socket() as unbound:
        os.dup2(unbound.fileno(), fd, inheritable=False)
