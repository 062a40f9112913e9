"""The transport of the server engine: a script's calls are posted over HTTP and awaited at the scheduler's socket.

Each call posts, then waits until the tokenizer manager's message is at the receive proxy. So messages keep the order of
the calls, and all arrive in the step at whose start the script made the calls. The transport never waits for the HTTP
response, which may need steps that the scheduler cannot make while it waits in this call. For the same reason a call
that the tokenizer manager would not pass on before the scheduler has made a step is deferred, together with all later
calls:

- after a pause in mode ``abort`` it accepts neither a pause nor a continue until all requests are answered;
- it sends no second flush before the first one is answered.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sr_fuzz.runtime.http_calls import GRACE_S, HttpCalls, after_grace, is_abort, raise_problem
from sr_fuzz.runtime.http_poster import BackgroundHttpPoster, HttpExchange, HttpPosterError
from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy
from sr_fuzz.script.errors import RequestRefused

# A server that holds a stream back still sends its head at once; only the order relative to later calls depends on it.
_HEAD_S = 5.0
# Number of unanswered calls that one line names.
_NAMED_CALLS = 5


class HttpTransport:
    """The transport of scripts to one server; see `sr_fuzz.runtime.transport.Transport`."""

    def __init__(
        self,
        proxy: ScriptedTokenizerRecvProxy,
        poster: BackgroundHttpPoster,
        base_url: str,
        *,
        arrival_timeout_s: float = 60.0,
        default_dp_rank: int | None = None,
        answered: Callable[[str], bool] | None = None,
    ) -> None:
        """``answered`` returns whether the scheduler has sent its last message for a request id.

        It decides in which step a pause in mode ``abort`` is over. Without it the HTTP responses decide, which arrive
        some milliseconds, and so some steps, later.
        """
        self._proxy = proxy
        self._poster = poster
        self._calls = HttpCalls(proxy, poster, base_url.rstrip("/"), arrival_timeout_s)
        self._timeout_s = arrival_timeout_s
        self._default_dp_rank = default_dp_rank
        self._answered = answered if answered is not None else self._client_has_answer
        # These three attributes are state of the server and are kept across scripts.
        self._paused = False
        self._abort_pause: HttpExchange | None = None
        self._flush: HttpExchange | None = None
        self._flush_is_new = False
        self._forget_script()
        proxy.on_step = self.next_step

    def _forget_script(self) -> None:
        self.responses: dict[str, HttpExchange] = {}
        """The HTTP exchanges of the generate requests that reached the scheduler, by request id."""
        self.refused: dict[str, str] = {}
        """The server's messages for the requests that did not reach the scheduler, by request id."""
        self.not_forwarded: list[str] = []
        """Request ids whose abort was not passed on: not known to the tokenizer manager, or aborted before."""
        self._held_back: list[tuple[str, HttpExchange]] = []
        self._posted: set[str] = set()
        """Request ids of all requests that were sent, also of those that are held back or refused."""
        self._several: set[str] = set()
        """Request ids of requests for several samples; the scheduler never sees these ids."""
        self._several_sent: list[HttpExchange] = []
        """The exchanges of those of them that reached the scheduler."""
        self._put_off: deque[tuple[str, Callable[[], bool], Callable[[], None]]] = deque()

    def reset(self) -> None:
        """Drop the state of the last script. The paused state is kept, as the server keeps it."""
        self._forget_script()

    @property
    def paused(self) -> bool:
        """Whether the tokenizer manager is paused and holds requests back."""
        return self._paused

    def await_samples(self, timeout_s: float) -> bool:
        """Wait, without a step, until the server sends more of a request for several samples, or has answered it.

        The server sends the samples some milliseconds after it got the end of the prefill, when the scheduler may have
        nothing else to do. Returns whether the scheduler has something to take.
        """
        if self._proxy.pending:
            return True
        if self._samples_answered():
            return False
        try:
            arrived = self._proxy.wait_until_arrived(
                lambda message: True,
                timeout_s=timeout_s,
                give_up=lambda: "answered" if self._samples_answered() else None,
            )
        except TimeoutError:
            return False  # the check of the clients' answers will tell
        return arrived is not None

    def _samples_answered(self) -> bool:
        return all(exchange.done for exchange in self._several_sent)

    def settle(self, timeout_s: float) -> str:
        """Wait, at most ``timeout_s`` seconds, until every call is answered; returns problems as a line.

        The line names unanswered and failed calls; it is empty if there are none. It makes no step, so call it when the
        scheduler is idle.
        """
        if self._put_off:
            return f"{len(self._put_off)} calls were put off until the engine steps, and never got through"
        deadline = time.monotonic() + timeout_s
        waiting = [e for e in self._poster.exchanges if not e.wait(max(0.0, deadline - time.monotonic()))]
        if waiting:
            rids = {exchange: rid for rid, exchange in [*self.responses.items(), *self._held_back]}
            names = ", ".join(rids.get(exchange, exchange.url) for exchange in waiting[:_NAMED_CALLS])
            more = f" and {len(waiting) - _NAMED_CALLS} more" if len(waiting) > _NAMED_CALLS else ""
            return f"no HTTP answer within {timeout_s:g} s to {names}{more}"
        self._poster.reset()
        try:
            self._poster.check()
        except HttpPosterError as error:
            return str(error)
        return ""

    @property
    def put_off(self) -> list[str]:
        """Deferred calls, which the tokenizer manager would not pass on yet, in order."""
        return [what for what, _, _ in self._put_off]

    @property
    def held_back(self) -> list[str]:
        """Request ids that the tokenizer manager holds back until it continues, in order."""
        return [rid for rid, _ in self._held_back]

    # -- the calls ---------------------------------------------------------------------------------------------

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None:
        """Send a generate request. Raises `RequestRefused`, unless the server holds the request back.

        ``fields`` are fields of a ``/generate`` body.
        """
        body = {"rid": rid, "input_ids": list(input_ids), "sampling_params": sampling, "stream": True, **fields}
        if sampling.get("n", 1) > 1:
            self._several.add(rid)
        if self._default_dp_rank is not None:
            body.setdefault("routed_dp_rank", self._default_dp_rank)
        self._in_order(f"generate {rid}", lambda: self._generate(rid, body))

    def embed(self, *, rid: str, input_ids: Sequence[int], **fields: Any) -> None:
        """Send an embedding request. Raises as `generate`.

        ``fields`` are fields of an ``/encode`` body.
        """
        body = {"rid": rid, "input_ids": list(input_ids), **fields}
        self._in_order(f"embed {rid}", lambda: self._generate(rid, body, path="/encode"))

    def pause(self, mode: str) -> None:
        self._in_order(f"pause in mode {mode}", lambda: self._pause(mode), put_off=self._pause_is_stuck)

    def continue_(self, torch_empty_cache: bool = False) -> None:
        self._in_order("continue", lambda: self._continue(torch_empty_cache), put_off=self._pause_is_stuck)

    def abort(self, rid: str, *, abort_all: bool = False, await_arrival: bool = True) -> None:
        self._in_order("abort", lambda: self._abort(rid, abort_all, await_arrival))

    def flush_cache(self) -> None:
        self._in_order("flush", self._flush_cache, put_off=self._flush_is_stuck)

    def control(self, call: str, **fields: Any) -> None:
        """Make a control call. The tokenizer manager may refuse it, e.g. a session that is already being opened."""
        self._in_order(call, lambda: self._calls.control(call, fields))

    def next_step(self) -> None:
        """Make the deferred calls that can be passed on now; called at the start of each step."""
        self._flush_is_new = False
        if not self._pause_is_stuck():
            self._end_abort_pause()
        while self._put_off and not self._put_off[0][1]():
            _, _, call = self._put_off.popleft()
            try:
                call()
            except RequestRefused:
                pass  # the call has already returned; the refusal is in `refused`

    def _in_order(self, what: str, call: Callable[[], None], put_off: Callable[[], bool] = lambda: False) -> None:
        if self._put_off or put_off():
            self._put_off.append((what, put_off, call))
        else:
            call()

    # -- generate ----------------------------------------------------------------------------------------------

    def _generate(self, rid: str, body: dict[str, Any], path: str = "/generate") -> None:
        self._posted.add(rid)
        self.refused.pop(rid, None)
        since = self._proxy.mark()
        exchange = self._calls.post_to(path, body)
        if self._paused:
            # The head of a stream arrives when the tokenizer manager has accepted the request. So held-back requests
            # are queued there in order, and a later abort finds them. Requests without a stream are answered late, so
            # the transport waits for the grace time.
            exchange.wait_for_head(_HEAD_S if body.get("stream") else GRACE_S)
            self._held_back.append((rid, exchange))
            return
        self._await_requests([(rid, exchange)], since)
        if rid in self.refused:
            refusal = exchange.refusal
            raise RequestRefused(rid, refusal[0] if refusal else None, self.refused[rid])

    def _release_held_back(self, since: int) -> None:
        held_back, self._held_back = self._held_back, []
        self._await_requests(held_back, since)

    def _await_requests(self, sent: list[tuple[str, HttpExchange]], since: int) -> None:
        """Wait for the messages of requests that were sent since that mark, or until they are refused."""
        taken: list[Any] = []
        for rid, exchange in sent:
            if rid not in self._several and self._await_request(rid, exchange, since, taken):
                self.responses[rid] = exchange
        several = [(rid, exchange) for rid, exchange in sent if rid in self._several]
        self._await_several([exchange for _, exchange in several], since)
        for rid, exchange in several:
            if exchange.done:
                self.refused[rid] = _refusal(exchange)
            else:
                self._several_sent.append(exchange)

    def _await_request(self, rid: str, exchange: HttpExchange, since: int, taken: list[Any]) -> bool:
        """Wait for the request's message; False when it is refused.

        ``taken``: messages of other requests with this id.
        """

        def is_it(message: Any) -> bool:
            if not hasattr(message, "sampling_params") or message.rid != rid:
                return False
            return not any(message is other for other in taken)

        def ended() -> str | None:
            # The scheduler is blocked in this call, so a response that is complete now did not come from it.
            return "answered" if exchange.done else None

        message = self._proxy.wait_until_arrived(
            is_it, timeout_s=self._timeout_s, description=f"generate request {rid!r}", give_up=ended, since=since
        )
        if message is None:
            self.refused[rid] = _refusal(exchange)
            return False
        taken.append(message)
        return True

    def _await_several(self, exchanges: list[HttpExchange], since: int) -> None:
        """Wait until each of these requests for several samples has a message, or is refused.

        The tokenizer manager sends them with ids that it generates, in an order of its own. Which message is whose
        cannot be told, so they are counted.
        """
        arrived = 0

        def all_there() -> bool:
            return arrived >= sum(not exchange.done for exchange in exchanges)

        def is_last(message: Any) -> bool:
            nonlocal arrived
            arrived += hasattr(message, "sampling_params") and message.rid not in self._posted
            return all_there()

        self._proxy.wait_until_arrived(
            is_last,
            timeout_s=self._timeout_s,
            description=f"requests for several samples ({len(exchanges)} sent)",
            give_up=lambda: "all there" if all_there() else None,
            since=since,
        )

    # -- pause and continue ------------------------------------------------------------------------------------

    def _pause(self, mode: str) -> None:
        self._end_abort_pause()
        since = self._proxy.mark()
        exchange = self._calls.post("pause", {"mode": mode})
        self._paused = True
        if mode != "abort":
            self._calls.await_message("pause", exchange, since)
            return
        # In mode ``abort`` the tokenizer manager aborts all requests and sends no pause to the scheduler.
        self._calls.await_message("abort", exchange, since)
        self._abort_pause = exchange
        if not self._pause_is_stuck():
            self._end_abort_pause()

    def _continue(self, torch_empty_cache: bool) -> None:
        self._end_abort_pause()
        since = self._proxy.mark()
        exchange = self._calls.post("continue", {"torch_empty_cache": torch_empty_cache})
        self._calls.await_message("continue", exchange, since)
        self._paused = False
        self._release_held_back(since)

    def _pause_is_stuck(self) -> bool:
        """Whether a pause in mode ``abort`` waits for answers that the scheduler has not sent yet."""
        if self._abort_pause is None or self._abort_pause.done:
            return False
        # Which of the scheduler's requests are the samples of one request, only the tokenizer manager knows.
        return not (self._samples_answered() and all(self._answered(rid) for rid in self.responses))

    def _end_abort_pause(self) -> None:
        # The pause ends by itself once all requests are answered, but it checks only once a second, and sends another
        # abort each time. Waiting here makes these messages arrive in a step that does not depend on a clock.
        exchange, self._abort_pause = self._abort_pause, None
        if exchange is not None and not exchange.wait(self._timeout_s):
            raise TimeoutError(f"a pause in mode 'abort' did not end within {self._timeout_s:g} s of the last answer")

    # -- abort and flush ---------------------------------------------------------------------------------------

    def _abort(self, rid: str, abort_all: bool, await_arrival: bool) -> None:
        since = self._proxy.mark()
        exchange = self._calls.post("abort", {"rid": rid, "abort_all": abort_all})
        message = self._proxy.wait_until_arrived(
            lambda message: is_abort(message, rid, abort_all),
            timeout_s=self._timeout_s,
            description="abort of everything" if abort_all else f"abort of {rid!r}",
            give_up=after_grace(exchange),
            since=since,
        )
        if message is None:
            raise_problem(exchange)
            self.not_forwarded.append(rid)
        elif not await_arrival:
            self._proxy.delay(message)

    def _flush_cache(self) -> None:
        since = self._proxy.mark()
        self._flush = self._calls.post("flush_cache", {})
        self._flush_is_new = True
        self._calls.await_message("flush_cache", self._flush, since)

    def _flush_is_stuck(self) -> bool:
        """Whether the previous flush is unanswered.

        Its answer may be on the way if the scheduler has made a step since.
        """
        return self._flush is not None and not self._flush.wait(0 if self._flush_is_new else GRACE_S)

    # -- answers -----------------------------------------------------------------------------------------------

    def _client_has_answer(self, rid: str) -> bool:
        return self.responses[rid].done


def _refusal(exchange: HttpExchange) -> str:
    return exchange.problem or "the server answered without the scheduler"
