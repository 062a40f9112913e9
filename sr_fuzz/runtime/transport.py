"""How a script's requests reach the scheduler: the same messages the tokenizer manager would send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sr_fuzz import versions
from sr_fuzz.runtime.recv_proxy import LocalRecvProxy


class Transport(Protocol):
    """The paths into the engine. Everything arrives in the coming turn, in the order of the calls."""

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None: ...

    def pause(self, mode: str) -> None: ...

    def continue_(self, torch_empty_cache: bool = False) -> None: ...

    def abort(self, rid: str, *, abort_all: bool = False, await_arrival: bool = True) -> None: ...

    def flush_cache(self) -> None: ...


class LocalTransport:
    """Puts the messages straight into the receive proxy of a scheduler in this process."""

    def __init__(self, proxy: LocalRecvProxy) -> None:
        self._proxy = proxy

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None:
        self._proxy.put(versions.generate_message(rid=rid, input_ids=input_ids, sampling=sampling, **fields))

    def pause(self, mode: str) -> None:
        # In abort mode the tokenizer manager aborts everything and sends the scheduler no pause at all.
        self._proxy.put(versions.abort_message("", True) if mode == "abort" else versions.pause_message(mode))

    def continue_(self, torch_empty_cache: bool = False) -> None:
        self._proxy.put(versions.continue_message(torch_empty_cache))

    def abort(self, rid: str, *, abort_all: bool = False, await_arrival: bool = True) -> None:
        message = versions.abort_message(rid, abort_all)
        if await_arrival:
            self._proxy.put(message)
        else:
            self._proxy.put_later(message)

    def flush_cache(self) -> None:
        self._proxy.put(versions.flush_message())
