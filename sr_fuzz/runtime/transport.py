"""The transport of a script's requests to the scheduler: the same messages that the tokenizer manager sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from sr_fuzz.runtime.recorder import OutputRecorder
from sr_fuzz.runtime.recv_proxy import LocalRecvProxy
from sr_fuzz.script.errors import RequestRefused
from sr_fuzz.sglang_api import messages, missing


class Transport(Protocol):
    """The calls into the engine. All messages arrive in the coming step, in the order of the calls."""

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None: ...

    def embed(self, *, rid: str, input_ids: Sequence[int], **fields: Any) -> None: ...

    def pause(self, mode: str) -> None: ...

    def continue_(self, torch_empty_cache: bool = False) -> None: ...

    def abort(self, rid: str, *, abort_all: bool = False, await_arrival: bool = True) -> None: ...

    def flush_cache(self) -> None: ...

    def control(self, call: str, **fields: Any) -> None:
        """Make any other control call of `sr_fuzz.sglang_api.messages.CONTROLS`; ``fields`` are fields of its body."""
        ...

    @property
    def responses(self) -> Mapping[str, Any] | None:
        """The HTTP exchanges of generate requests, by request id; None without HTTP."""
        ...

    @property
    def put_off(self) -> Sequence[str]:
        """Deferred calls, in order, which the tokenizer manager would not pass on to the scheduler yet."""
        ...

    @property
    def paused(self) -> bool:
        """Whether requests of clients are held back before they reach the scheduler."""
        ...

    def reset(self) -> None:
        """Drop the state of earlier scripts."""
        ...

    def await_samples(self, timeout_s: float) -> bool:
        """Wait, without a step, until the server sends more of a request for several samples, or has answered it.

        Returns whether the scheduler has something to take.
        """
        ...

    def settle(self, timeout_s: float) -> str:
        """Wait until every client has its answer, without a step; returns a text on those that have none."""
        ...


class _Primed(NamedTuple):
    """A request for ``n`` samples whose prompt is being prefilled."""

    rid: str
    n: int
    request: dict[str, Any]


class LocalTransport:
    """Puts messages directly into the receive proxy of a scheduler in this process."""

    def __init__(self, proxy: LocalRecvProxy, recorder: OutputRecorder, *, adapters: Sequence[str] = ()) -> None:
        """``adapters``: names of the LoRA adapters that the scheduler has, which are also their ids."""
        self._proxy = proxy
        self._adapters = adapters
        self._recorder = recorder
        self._primed: list[_Primed] = []
        proxy.on_step = self._send_copies

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None:
        fields = self._with_adapter(fields)
        # As in the tokenizer manager: one request that only prefills, then n separate requests once it is answered.
        several = dict(sampling)
        n = several.pop("n", 1)
        if n > 1:
            prefill = several | {"max_new_tokens": 0}
            self._put_request(rid=f"{rid}p.", input_ids=input_ids, sampling=prefill, **fields | {"stream": False})
            self._primed.append(_Primed(rid, n, {"input_ids": input_ids, "sampling": several, **fields}))
        else:
            self._put_request(rid=rid, input_ids=input_ids, sampling=several, **fields)

    def _with_adapter(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Replace ``lora_path``, a name, by the id that the tokenizer manager would look up."""
        name = fields.pop("lora_path", None)
        if name is None:
            return fields
        if name not in self._adapters:
            there = f"there are {', '.join(self._adapters)}" if self._adapters else "enable_lora is false"
            raise ValueError(f"start_req: no adapter {name!r}: {there}")
        return fields | messages.adapter_fields(name)

    def _put_request(self, **fields: Any) -> None:
        self._put_made(messages.generate_message, **fields)

    def _put_made(self, make: Callable[..., Any], **fields: Any) -> None:
        try:
            message = make(**fields)
        except ValueError as error:
            # The tokenizer manager gives this answer when SGLang's own classes refuse a value.
            raise RequestRefused(fields["rid"], HTTPStatus.BAD_REQUEST, str(error)) from None
        self._proxy.put(message)

    def _send_copies(self) -> None:
        for primed in list(self._primed):
            stream = self._recorder.streams.get(f"{primed.rid}p.")
            if stream is None or not stream.answered:
                continue
            self._primed.remove(primed)
            # An error is returned to the client; the tokenizer manager treats any other finish as the end of the
            # prefill.
            end = stream.finishes[0]
            if missing.here().or_default(lambda: (end.finish or {}).get("status_code"), None) is None:
                for index in range(primed.n):
                    self._put_request(rid=f"{primed.rid}c{index}.", **primed.request)

    def embed(self, *, rid: str, input_ids: Sequence[int], **fields: Any) -> None:
        self._put_made(messages.embedding_message, rid=rid, input_ids=input_ids, **self._with_adapter(fields))

    def pause(self, mode: str) -> None:
        # In mode ``abort`` the tokenizer manager aborts all requests and sends no pause to the scheduler.
        if mode == "abort":
            self.control("abort", rid="", abort_all=True)
        else:
            self.control("pause", mode=mode)

    def continue_(self, torch_empty_cache: bool = False) -> None:
        self.control("continue", torch_empty_cache=torch_empty_cache)

    def abort(self, rid: str, *, abort_all: bool = False, await_arrival: bool = True) -> None:
        message = messages.control_message("abort", rid=rid, abort_all=abort_all)
        if await_arrival:
            self._proxy.put(message)
        else:
            self._proxy.put_later(message)

    def flush_cache(self) -> None:
        self.control("flush_cache")

    def control(self, call: str, **fields: Any) -> None:
        self._proxy.put(messages.control_message(call, **fields))

    @property
    def responses(self) -> None:
        """There are no clients."""
        return None

    @property
    def put_off(self) -> Sequence[str]:
        """Requests for several samples whose prompt is still being prefilled, and messages for the coming step.

        Messages on the way are included because they are not yet visible as waiting requests.
        """
        sent = self._proxy.pending
        return [f"{primed.n} copies of {primed.rid}" for primed in self._primed] + [f"{sent} messages"] * (sent > 0)

    @property
    def paused(self) -> bool:
        """False: there is no tokenizer manager that could hold a request back."""
        return False

    def reset(self) -> None:
        self._primed.clear()

    def await_samples(self, timeout_s: float) -> bool:
        """False: the samples are sent in a step, and counted by `put_off` until then."""
        return False

    def settle(self, timeout_s: float) -> str:
        """There are no clients."""
        return ""
