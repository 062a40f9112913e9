"""Calls to the server: a call is posted over HTTP, then its message is awaited at the scheduler's socket."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sr_fuzz.runtime.http_patience import BriefPatience, NotPassedOn, Patience
from sr_fuzz.runtime.http_poster import BackgroundHttpPoster, HttpExchange
from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.messages import CONTROLS

# The tokenizer manager sends a message to its socket before it answers the HTTP request, and the message reaches our
# end of the socket in well below a millisecond. If no message has arrived after this time, none was sent.
GRACE_S = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The message that is expected after a call."""

    what: str
    is_it: Callable[[Any], bool]
    exchange: HttpExchange
    since: int
    """The mark of the proxy from before the call."""


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

    def control(self, call: str, body: dict[str, Any]) -> Expected:
        """Post a control call that the server may refuse."""
        kind = CONTROLS[call].message
        since = self._proxy.mark()
        return Expected(
            kind,
            lambda message: type(message).__name__ == kind and _brings(message, body),
            self.post(call, body),
            since,
        )

    def expected(self, call: str, exchange: HttpExchange, since: int) -> Expected:
        """The message that the tokenizer manager always sends for a control call; ``since``: a mark from before it."""
        kind = CONTROLS[call].message
        return Expected(kind, lambda message: type(message).__name__ == kind, exchange, since)

    def wait(self, expected: Expected, *, patient: bool = True, at_once: bool = False) -> Any | None:
        """Wait for the message of a call, and return it; None when the server has answered the call without it.

        Raises `NotPassedOn` when the server does not pass the call on although it answers others; if not ``patient``,
        after `STEP_S` already. ``at_once``: the call's answer leaves no message on the way.
        """
        answered = after_grace(expected.exchange, 0.0 if at_once else GRACE_S)
        patience = Patience(self._probe) if patient else BriefPatience()
        message = self._proxy.wait_until_arrived(
            expected.is_it,
            timeout_s=self._timeout_s,
            description=expected.what,
            give_up=lambda: answered() or ("held up" if patience.is_over() else None),
            since=expected.since,
        )
        if message is None and answered() is None:
            raise NotPassedOn(expected.what)
        return message

    def require(self, expected: Expected, *, patient: bool = True) -> None:
        """Wait for the message of a call; raises `EngineError` when the server answers without passing it on."""
        if self.wait(expected, patient=patient) is None:
            raise_problem(expected.exchange)
            url = expected.exchange.url
            raise EngineError(f"POST {url} was answered, but no {expected.what} reached the scheduler")

    def _probe(self) -> HttpExchange:
        # The tokenizer manager drops the abort of a request that it does not know, and answers.
        return self.post("abort", {"rid": "no such request", "abort_all": False})


def _brings(message: Any, body: dict[str, Any]) -> bool:
    """Whether the message has the fields that were posted, which distinguishes two calls that arrive together."""
    return all(getattr(message, name, value) == value for name, value in body.items())


def is_abort(message: Any, rid: str, abort_all: bool) -> bool:
    if type(message).__name__ != "AbortReq" or bool(message.abort_all) != abort_all:
        return False
    return abort_all or message.rid == rid


def after_grace(exchange: HttpExchange, grace_s: float = GRACE_S) -> Callable[[], str | None]:
    """Return a function that gives a reason to stop waiting once the answer has been there for ``grace_s``."""
    answered_at: list[float] = []

    def give_up() -> str | None:
        if not exchange.done:
            return None
        answered_at[:] = answered_at or [time.monotonic()]
        return "answered" if time.monotonic() - answered_at[0] >= grace_s else None

    return give_up


def raise_problem(exchange: HttpExchange) -> None:
    if exchange.problem is not None:
        raise EngineError(f"POST {exchange.url} did not reach the scheduler: {exchange.problem}")
