"""The transport of the server engine: a script's calls are posted over HTTP and awaited at the scheduler's socket.

Each call posts, then waits until the tokenizer manager's message is at the receive proxy. So messages keep the order of
the calls, and all arrive in the step at whose start the script made the calls. The transport never waits for the HTTP
response, which may need steps that the scheduler cannot make while it waits in this call. For the same reason a call
that the tokenizer manager would not pass on before the scheduler has made a step is deferred, together with all later
calls:

- after a pause in mode ``abort`` it accepts neither a pause nor a continue until all requests are answered;
- it sends no second flush before the first one is answered.

A call that is not passed on for any other reason is held up (`sr_fuzz.runtime.http_patience`): it is awaited in the
coming steps, and all later calls are deferred behind it.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sr_fuzz.runtime.http_calls import GRACE_S, Expected, HttpCalls, is_abort, raise_problem
from sr_fuzz.runtime.http_patience import AbortPause, NotPassedOn, request_ids
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
        self._abort_pause: AbortPause | None = None
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
        self._held_back: deque[_Request] = deque()
        self._single: set[str] = set()
        """Request ids that the scheduler sees as they were sent: those of requests for one sample."""
        self._of_several: list[HttpExchange] = []
        self._prefills: list[_Prefill] = []
        """The requests for several samples whose samples are not at the scheduler."""
        self._matched: list[Any] = []
        """Messages that are known to be those of requests of this script."""
        self._held_up: tuple[str, Callable[[bool], None]] | None = None
        """What the server does not pass on, and the rest of that call; see `_finish`."""
        self._put_off: deque[tuple[str, Callable[[], bool], Callable[[], None]]] = deque()

    def reset(self) -> None:
        """Drop the state of the last script. The paused state is kept, as the server keeps it."""
        self._forget_script()
        self._proxy.forget()

    @property
    def paused(self) -> bool:
        """Whether the tokenizer manager is paused and holds requests back."""
        return self._paused

    def settle(self, timeout_s: float) -> str:
        """Wait, at most ``timeout_s`` seconds, until every call is answered; returns problems as a line.

        The line names unanswered and failed calls; it is empty if there are none. It makes no step, so call it when the
        scheduler is idle.
        """
        if self.put_off:
            return f"{len(self.put_off)} calls were put off until the engine steps, and never got through"
        deadline = time.monotonic() + timeout_s
        waiting = [e for e in self._poster.exchanges if not e.wait(max(0.0, deadline - time.monotonic()))]
        if waiting:
            rids = {exchange: rid for rid, exchange in self.responses.items()}
            rids |= {request.exchange: request.rid for request in self._held_back}
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
        """Calls that the tokenizer manager does not pass on, or would not, in order; then requests on the way.

        These are samples that it sends next, and requests for the coming step, because they are not yet visible as
        waiting requests.
        """
        held_up = [] if self._held_up is None else [self._held_up[0]]
        samples = [f"samples of {prefill.request.rid}" for prefill in self._prefills if self._answered(prefill.rid)]
        arrived = len(request_ids(self._proxy.not_received))
        return held_up + [what for what, _, _ in self._put_off] + samples + [f"{arrived} on the way"] * (arrived > 0)

    @property
    def held_back(self) -> list[str]:
        """Request ids that the tokenizer manager holds back until it continues, in order."""
        return [request.rid for request in self._held_back]

    # -- the calls ---------------------------------------------------------------------------------------------

    def generate(self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any) -> None:
        """Send a generate request. Raises `RequestRefused`, unless the server holds the request back.

        ``fields`` are fields of a ``/generate`` body.
        """
        body = {"rid": rid, "input_ids": list(input_ids), "sampling_params": sampling, "stream": True, **fields}
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
        self._in_order(call, lambda: self._control(call, fields))

    def next_step(self) -> None:
        """Make the deferred calls that can be passed on now; called at the start of each step."""
        self._flush_is_new = False
        if self._held_up is not None:
            (_, rest), self._held_up = self._held_up, None
            self._unless_refused(lambda: self._finish(rest, patient=False))
        self._take_up_samples()
        self._pause_is_stuck()
        while self._put_off and self._held_up is None and not self._put_off[0][1]():
            _, _, call = self._put_off.popleft()
            self._unless_refused(call)

    def _in_order(self, what: str, call: Callable[[], None], put_off: Callable[[], bool] = lambda: False) -> None:
        if self._put_off or self._held_up is not None or put_off():
            self._put_off.append((what, put_off, call))
        else:
            call()

    def _finish(self, rest: Callable[[bool], None], patient: bool = True) -> None:
        """Run the waiting part of a call; if the server does not pass the call on, it is run again in the coming steps.

        ``rest`` takes whether to be patient. It finds at once what has arrived since it ran last.
        """
        try:
            rest(patient)
        except NotPassedOn as held_up:
            self._held_up = (str(held_up), rest)

    def _unless_refused(self, call: Callable[[], None]) -> None:
        try:
            call()
        except RequestRefused:
            pass  # the script's call has already returned; the refusal is in `refused`

    def _control(self, call: str, fields: dict[str, Any]) -> None:
        expected = self._calls.control(call, fields)

        def rest(patient: bool) -> None:
            if self._calls.wait(expected, patient=patient) is None and expected.exchange.refusal is None:
                raise_problem(expected.exchange)

        self._finish(rest)

    # -- generate ----------------------------------------------------------------------------------------------

    def _generate(self, rid: str, body: dict[str, Any], path: str = "/generate") -> None:
        since = self._proxy.mark()
        exchange = self._calls.post_to(path, body)
        request = _Request(rid, exchange, body["input_ids"], body.get("sampling_params", {}).get("n", 1))
        if request.n == 1:
            self._single.add(rid)
        if self._paused:
            # The head of a stream arrives when the tokenizer manager has accepted the request. So held-back requests
            # are queued there in order, and a later abort finds them. Requests without a stream are answered late, so
            # the transport waits for the grace time.
            exchange.wait_for_head(_HEAD_S if body.get("stream") else GRACE_S)
            self._held_back.append(request)
            return

        def rest(patient: bool) -> None:
            if not self._await_request(request, since, patient):
                refusal = exchange.refusal
                raise RequestRefused(rid, refusal[0] if refusal else None, self.refused[rid])

        self._finish(rest)

    def _release_held_back(self, since: int, patient: bool) -> None:
        while self._held_back:
            self._await_request(self._held_back[0], since, patient)
            self._held_back.popleft()

    def _await_request(self, request: _Request, since: int, patient: bool) -> bool:
        """Wait for the request's message; returns whether it came, not a refusal. Raises `NotPassedOn`."""
        rid, exchange = request.rid, request.exchange
        message = self._match(f"generate request {rid!r}", request, since, patient)
        if message is None:
            self.refused[rid] = exchange.problem or "the server answered without the scheduler"
        elif request.n == 1:
            self.responses[rid] = exchange
        else:
            self._of_several.append(exchange)
            self._prefills.append(_Prefill(message.rid, request, since, request.n))
        return message is not None

    def _match(self, what: str, request: _Request, since: int, patient: bool) -> Any | None:
        """Wait for a message that is not known yet and belongs to the request; None when the server has answered it."""

        def is_it(message: Any) -> bool:
            if not hasattr(message, "sampling_params") or any(message is other for other in self._matched):
                return False
            if request.n == 1:
                return message.rid == request.rid
            # What the tokenizer manager sends for several samples has ids that it generates.
            return message.rid not in self._single and list(message.input_ids) == request.input_ids

        # The scheduler is blocked in this call, so a response that is complete now did not come from it.
        expected = Expected(what, is_it, request.exchange, since)
        message = self._calls.wait(expected, patient=patient, at_once=True)
        if message is not None:
            self._matched.append(message)
        return message

    def _take_up_samples(self) -> None:
        """Wait for the samples whose prompt is prefilled, so that they arrive in a step that depends on no clock."""
        for prefill in list(self._prefills):
            if self._held_up is None and self._answered(prefill.rid):
                self._prefills.remove(prefill)
                self._finish(functools.partial(self._await_samples, prefill))

    def _await_samples(self, prefill: _Prefill, patient: bool) -> None:
        what = f"sample of {prefill.request.rid!r}"
        while prefill.missing and self._match(what, prefill.request, prefill.since, patient) is not None:
            prefill.missing -= 1

    # -- pause and continue ------------------------------------------------------------------------------------

    def _pause(self, mode: str) -> None:
        # In mode ``abort`` the tokenizer manager aborts all requests and sends no pause to the scheduler.
        since = self._proxy.mark()
        exchange = self._calls.post("pause", {"mode": mode})
        expected = self._calls.expected("abort" if mode == "abort" else "pause", exchange, since)
        self._paused = True

        def rest(patient: bool) -> None:
            self._calls.require(expected, patient=patient)
            if mode == "abort":
                self._abort_pause = AbortPause(exchange, self._proxy, self._answered, self._timeout_s)
                self._pause_is_stuck()

        self._finish(rest)

    def _continue(self, torch_empty_cache: bool) -> None:
        since = self._proxy.mark()
        exchange = self._calls.post("continue", {"torch_empty_cache": torch_empty_cache})
        expected = self._calls.expected("continue", exchange, since)

        def rest(patient: bool) -> None:
            self._calls.require(expected, patient=patient)
            self._paused = False
            self._release_held_back(since, patient)

        self._finish(rest)

    def _pause_is_stuck(self) -> bool:
        """Whether a pause in mode ``abort`` lasts on; waits for its end when that needs no step."""
        if self._abort_pause is not None and not self._abort_pause.lasts():
            self._abort_pause = None
        return self._abort_pause is not None

    # -- abort and flush ---------------------------------------------------------------------------------------

    def _abort(self, rid: str, abort_all: bool, await_arrival: bool) -> None:
        since = self._proxy.mark()
        exchange = self._calls.post("abort", {"rid": rid, "abort_all": abort_all})
        what = "abort of everything" if abort_all else f"abort of {rid!r}"
        expected = Expected(what, lambda message: is_abort(message, rid, abort_all), exchange, since)

        def rest(patient: bool) -> None:
            message = self._calls.wait(expected, patient=patient)
            if message is None:
                raise_problem(exchange)
                self.not_forwarded.append(rid)
            elif not await_arrival and patient:
                self._proxy.delay(message)

        self._finish(rest)

    def _flush_cache(self) -> None:
        since = self._proxy.mark()
        self._flush = self._calls.post("flush_cache", {})
        self._flush_is_new = True
        expected = self._calls.expected("flush_cache", self._flush, since)
        self._finish(lambda patient: self._calls.require(expected, patient=patient))

    def _flush_is_stuck(self) -> bool:
        """Whether the previous flush is unanswered.

        Its answer may be on the way if the scheduler has made a step since.
        """
        return self._flush is not None and not self._flush.wait(0 if self._flush_is_new else GRACE_S)

    # -- answers -----------------------------------------------------------------------------------------------

    def _client_has_answer(self, rid: str) -> bool:
        if rid in self.responses:
            return self.responses[rid].done
        # The ids of a prefill and of samples are those of no client.
        return all(exchange.done for exchange in self._of_several)


class _Request(NamedTuple):
    """A request that was posted."""

    rid: str
    exchange: HttpExchange
    input_ids: list[int]
    n: int
    """Number of samples. The scheduler never sees the id of a request for several."""


@dataclass(slots=True, eq=False)
class _Prefill:
    """The prefill that the tokenizer manager sends first for a request for several samples."""

    rid: str
    request: _Request
    since: int
    missing: int
    """Number of samples that have not arrived."""
