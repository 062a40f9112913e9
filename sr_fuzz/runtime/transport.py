"""How a script's requests reach the scheduler: the same messages the tokenizer manager would send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def open_session(self, session_id: str, *, streaming: bool = False, timeout: float | None = None) -> None: ...

    def close_session(self, session_id: str) -> None: ...

    @property
    def responses(self) -> Mapping[str, Any] | None:
        """The HTTP exchanges of generate requests, by request id; None without HTTP."""
        ...

    @property
    def put_off(self) -> Sequence[str]:
        """Calls that could not be made yet, in order: what lies before the scheduler would not pass them on."""
        ...

    @property
    def paused(self) -> bool:
        """Whether a client's requests are held back before they reach the scheduler."""
        ...

    def reset(self) -> None:
        """Forget what earlier scripts did."""
        ...

    def settle(self, timeout_s: float) -> str:
        """Wait until every client has its answer, without turning the loop; a text says who has none."""
        ...


class LocalTransport:
    """Puts the messages straight into the receive proxy of a scheduler in this process."""

    def __init__(self, proxy: LocalRecvProxy) -> None:
        self._proxy = proxy

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None:
        if "lora_path" in fields:
            raise ValueError(f"start_req: lora_path={fields['lora_path']!r}: only the server engine loads adapters")
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

    def open_session(self, session_id: str, *, streaming: bool = False, timeout: float | None = None) -> None:
        self._proxy.put(versions.open_session_message(session_id, streaming, timeout))

    def close_session(self, session_id: str) -> None:
        self._proxy.put(versions.close_session_message(session_id))

    @property
    def responses(self) -> None:
        """There are no clients."""
        return None

    @property
    def put_off(self) -> Sequence[str]:
        """Every call arrives."""
        return ()

    @property
    def paused(self) -> bool:
        """Nothing stands before the scheduler that could hold a request back."""
        return False

    def reset(self) -> None:
        """Nothing is remembered here."""

    def settle(self, timeout_s: float) -> str:
        """There are no clients."""
        return ""
