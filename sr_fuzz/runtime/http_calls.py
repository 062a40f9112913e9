"""Calls to the server: a call is posted over HTTP, then its message is awaited at the scheduler's socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sr_fuzz.runtime.http_poster import BackgroundHttpPoster, HttpExchange
from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.messages import CONTROLS

# The tokenizer manager sends a message to its socket before it answers the HTTP request, and the message reaches our
# end of the socket in well below a millisecond. If no message has arrived after this time, none was sent.
GRACE_S = 0.2


class HttpCalls:
    """Posts a call, and waits for the message that the tokenizer manager sends for it."""

    def __init__(
        self, proxy: ScriptedTokenizerRecvProxy, poster: BackgroundHttpPoster, base_url: str, timeout_s: float
    ) -> None:
        self._proxy = proxy
        self._poster = poster
        self._base_url = base_url
        self._timeout_s = timeout_s

    def post_to(self, path: str, body: dict[str, Any]) -> HttpExchange:
        return self._poster.send(self._base_url + path, body)

    def post(self, call: str, body: dict[str, Any]) -> HttpExchange:
        """Post a control call."""
        control = CONTROLS[call]
        return self.post_to(control.path, {**control.constants, **body})

    def control(self, call: str, body: dict[str, Any]) -> None:
        """Post a control call and wait for its message.

        The server may refuse it; raises `EngineError` when it fails.
        """
        kind = CONTROLS[call].message
        since = self._proxy.mark()
        exchange = self.post(call, body)
        message = self._proxy.wait_until_arrived(
            lambda message: type(message).__name__ == kind and _brings(message, body),
            timeout_s=self._timeout_s,
            description=kind,
            give_up=after_grace(exchange),
            since=since,
        )
        if message is None and exchange.refusal is None:
            raise_problem(exchange)

    def await_message(self, call: str, exchange: HttpExchange, since: int) -> None:
        """Wait for the message of a control call; raises `EngineError` when the server refuses the call."""
        kind = CONTROLS[call].message
        message = self._proxy.wait_until_arrived(
            lambda message: type(message).__name__ == kind,
            timeout_s=self._timeout_s,
            description=kind,
            give_up=lambda: exchange.problem if exchange.done else None,
            since=since,
        )
        if message is None:
            raise_problem(exchange)


def _brings(message: Any, body: dict[str, Any]) -> bool:
    """Whether the message has the fields that were posted, which distinguishes two calls that arrive together."""
    return all(getattr(message, name, value) == value for name, value in body.items())


def is_abort(message: Any, rid: str, abort_all: bool) -> bool:
    if type(message).__name__ != "AbortReq" or bool(message.abort_all) != abort_all:
        return False
    return abort_all or message.rid == rid


def after_grace(exchange: HttpExchange) -> Callable[[], str | None]:
    """Return a function that gives a reason to stop waiting once the answer has been there for `GRACE_S`."""
    answered_at: list[float] = []

    def give_up() -> str | None:
        if not exchange.done:
            return None
        answered_at[:] = answered_at or [time.monotonic()]
        return "answered" if time.monotonic() - answered_at[0] >= GRACE_S else None

    return give_up


def raise_problem(exchange: HttpExchange) -> None:
    if exchange.problem is not None:
        raise EngineError(f"POST {exchange.url} did not reach the scheduler: {exchange.problem}")
