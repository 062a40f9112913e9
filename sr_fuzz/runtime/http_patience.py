"""When to stop waiting for the server: it does other things meanwhile, so what is awaited is not late but held up.

A time limit cannot tell a message that never comes from a slow machine. Other work of the tokenizer manager can,
because all of it runs in one event loop: what it has answered since, or sent since, it did although the awaited call
came before. On a slow machine that other work is late as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from sr_fuzz.runtime.http_poster import HttpExchange
from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy

# A message is normally there in milliseconds; only after this time is anything else asked.
SLOW_S = 2.0
# Calls that the server must answer one after the other, this far apart, while the awaited message does not come.
_PROBES = 5
_PROBE_PAUSE_S = 0.2
# Checks that a pause in mode ``abort`` must make, a second apart, after the scheduler has answered all requests, and
# that are waited for while it does not.
_CHECKS = 4
# Steps in which a scheduler that can go on would have answered, or taken, a request: a chunk, its result, its end.
_IDLE_STEPS = 4
# Time given in each later step to what is held up, so that a number of steps is time, too.
STEP_S = 0.05
_POLL_S = 0.005


class NotPassedOn(Exception):
    """The server does not pass a call on although it answers others; the message says what does not arrive."""


class Patience:
    """The patience of one wait. It is over when the server has answered several other calls meanwhile."""

    def __init__(self, probe: Callable[[], HttpExchange]) -> None:
        """``probe`` posts a call that the server answers without the scheduler."""
        self._probe = probe
        self._current: HttpExchange | None = None
        self._answered = 0
        self._next_at = time.monotonic() + SLOW_S

    def is_over(self) -> bool:
        """Called every few milliseconds of the wait."""
        if self._current is not None:
            if self._current.done:
                # A call that failed shows nothing about the server's event loop.
                self._answered += self._current.problem is None
                self._current = None
                self._next_at = time.monotonic() + _PROBE_PAUSE_S
        elif self._answered >= _PROBES:
            return True
        elif time.monotonic() >= self._next_at:
            self._current = self._probe()
        return False


class BriefPatience:
    """The patience with what is known to be held up."""

    def __init__(self) -> None:
        self._end = time.monotonic() + STEP_S

    def is_over(self) -> bool:
        return time.monotonic() >= self._end


class AbortPause:
    """A pause in mode ``abort``, from its arrival at the scheduler to its end.

    The tokenizer manager ends it once no request holds the model-update lock. It looks once a second, and sends another
    abort of everything before each look.
    """

    def __init__(
        self,
        exchange: HttpExchange,
        proxy: ScriptedTokenizerRecvProxy,
        answered: Callable[[str], bool],
        timeout_s: float,
    ) -> None:
        """``answered`` returns whether the scheduler has sent its last message for a request id."""
        self._exchange = exchange
        self._proxy = proxy
        self._answered = answered
        self._timeout_s = timeout_s
        self._held_up = False
        self._idle_steps = 0
        self._unanswered: list[str] = []
        self._checks_left = _CHECKS

    def lasts(self) -> bool:
        """Whether it lasts beyond this step. If the scheduler has answered all requests, its end is waited for.

        So the aborts that it sends meanwhile arrive in a step that does not depend on a clock. Requests that arrive in
        the wait, such as the samples of an aborted prefill, need steps before it can end. Where steps alone change
        nothing, since the scheduler is paused as well, the next abort is waited for, a few times: steps without a batch
        take no time, and the server sends one abort a second. Raises ``TimeoutError`` when the server neither ends it
        nor looks.
        """
        if self._held_up:
            return not self._exchange.wait(STEP_S)
        start, deadline = self._proxy.mark(), time.monotonic() + self._timeout_s
        while not self._exchange.wait(_POLL_S):
            if self._open():
                self._await_next_abort(deadline)
                return True
            if sum(_aborts_all(message) for message in self._proxy.arrivals(start)) >= _CHECKS:
                self._held_up = True
                return True
            if time.monotonic() > deadline:
                limit = f"within {self._timeout_s:g} s of the last answer"
                raise TimeoutError(f"a pause in mode 'abort' neither ended nor sent its aborts {limit}")
        return False

    def _open(self) -> list[str]:
        """Ids of the requests that arrived at the scheduler and are not answered."""
        return [rid for rid in request_ids(self._proxy.arrivals()) if not self._answered(rid)]

    def _await_next_abort(self, deadline: float) -> None:
        """Wait for the next abort of everything if the same requests were unanswered in each of the last steps."""
        unanswered = self._open()
        self._idle_steps = self._idle_steps + 1 if unanswered == self._unanswered else 0
        self._unanswered = unanswered
        if self._idle_steps < _IDLE_STEPS or not self._checks_left:
            return
        self._idle_steps = 0
        self._checks_left -= 1
        start = self._proxy.mark()
        while not any(map(_aborts_all, self._proxy.arrivals(start))):
            if self._exchange.wait(_POLL_S):
                return
            if time.monotonic() > deadline:
                limit = f"within {self._timeout_s:g} s"
                raise TimeoutError(f"a pause in mode 'abort' neither ended nor sent its next abort {limit}")


def request_ids(messages: Iterable[object]) -> list[str]:
    """Ids of the requests in these messages, batches included."""
    found = []
    for message in messages:
        for part in getattr(message, "batch", None) or (message,):
            if hasattr(part, "sampling_params"):
                found.append(part.rid)
    return found


def _aborts_all(message: object) -> bool:
    return type(message).__name__ == "AbortReq" and bool(getattr(message, "abort_all", False))
