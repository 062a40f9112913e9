"""An HTTP client that posts in the background, while SGLang's event loop runs or a script waits in it.

One thread runs one asyncio loop with one ``aiohttp`` session. Errors in the thread are kept until the caller asks for
them: `HttpExchange.problem` for one exchange; for all other errors `BackgroundHttpPoster.check` and ``close``, which
raise.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

import aiohttp

# A loop stops within milliseconds after it is told to; a thread that is still alive after this time hangs.
JOIN_TIMEOUT_S = 10.0
# A server's answer may be a whole traceback; one line of a report contains at most this many characters of it.
_TEXT_LIMIT = 300


class HttpPosterError(RuntimeError):
    """A background task failed and its error had not been read by the caller; the message is one line."""


class HttpExchange:
    """One POST and its response; it is filled in by the poster's thread and can be read from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status: int | None = None
        """The HTTP status, once the head of the response has arrived."""
        self.events: list[Any] = []
        """The decoded events of an event stream that have arrived so far."""
        self.body: Any = None
        """The body of a response that is no event stream: decoded JSON, or the text if it is not JSON."""
        self._error: BaseException | None = None
        self._seen = False
        self._has_head = threading.Event()
        self._is_done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether the response is complete or has failed."""
        return self._is_done.is_set()

    @property
    def error(self) -> BaseException | None:
        """The exception that ended it early. Once it has been read, `check` does not raise it again."""
        self._seen = self._seen or self.done
        return self._error

    @property
    def problem(self) -> str | None:
        """One line about the error, in the server's words if there are any; None if there is no error."""
        if self.error is not None:
            return "cancelled" if _was_cancelled(self._error) else _described(self._error)
        refusal = self.refusal
        return None if refusal is None else f"HTTP {refusal[0]}: {refusal[1]}"

    @property
    def refusal(self) -> tuple[int, str] | None:
        """Status and text of a refusal by the server, in its status or within the stream; None if there is none."""
        if self.status is not None and self.status >= 400:
            return self.status, _text_of(self.body if self.body is not None else self.events)
        for event in list(self.events):
            if isinstance(event, dict) and "error" in event:
                error = event["error"]
                code = error.get("code") if isinstance(error, dict) else None
                return code if isinstance(code, int) else 400, _text_of(event)
        return None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end, at most ``timeout_s`` seconds. Returns whether it has ended."""
        return self._is_done.wait(timeout_s)

    def wait_for_head(self, timeout_s: float | None = None) -> bool:
        """Wait until the server has sent the status, or for the end. Returns whether either has arrived."""
        return self._has_head.wait(timeout_s)

    def _got_head(self, status: int) -> None:
        self.status = status
        self._has_head.set()

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        # The caller that cancels an exchange knows about it.
        self._seen = self._seen or _was_cancelled(error)
        self._is_done.set()
        self._has_head.set()

    @property
    def _failed_unseen(self) -> bool:
        return self.done and self._error is not None and not self._seen


class BackgroundHttpPoster:
    """SGLang's poster, with the same name, whose responses can be read."""

    def __init__(self) -> None:
        self.exchanges: list[HttpExchange] = []
        """The exchanges since the last `reset`, in order."""
        self._open: dict[HttpExchange, Future] = {}
        self._failures: list[str] = []
        self._lock = threading.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sr-fuzz-http-poster", daemon=True)
        self._thread.start()

    def send(self, url: str, json: Any) -> HttpExchange:
        """Post ``json`` and return at once; the response is stored in the exchange."""
        exchange = HttpExchange(url)
        future = self._start(self._exchange(exchange, json), f"POST {url}")
        self.exchanges.append(exchange)
        with self._lock:
            self._open[exchange] = future
        future.add_done_callback(lambda future: self._ended(exchange, future))
        return exchange

    def submit_coro(self, coro: Coroutine) -> None:
        """Run a coroutine in the background; if it fails, `check` raises its error."""
        what = getattr(coro, "__qualname__", repr(coro))
        self._start(coro, what).add_done_callback(lambda future: self._note_failure(what, future))

    async def post(self, url: str, json: Any) -> None:
        """Post within the caller's coroutine, and read the response to its end, whatever its status is."""
        async with self._get_session().post(url, json=json) as response:
            await response.read()

    def check(self) -> None:
        """Raise `HttpPosterError` for the failures that have not been read yet; each one is raised once."""
        for exchange in self.exchanges:
            self._keep_failure(exchange)
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise HttpPosterError(failures[0] + more)

    def reset(self, *, cancel_open: bool = False) -> None:
        """Drop finished exchanges, but not their failures. Open ones are kept, unless ``cancel_open`` is set."""
        if cancel_open:
            self._cancel_open()
        for exchange in self.exchanges:
            self._keep_failure(exchange)
        self.exchanges = [exchange for exchange in self.exchanges if not exchange.done]

    def close(self) -> None:
        """Cancel open exchanges, end the thread, then call `check`. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._cancel_open()
        try:
            asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(JOIN_TIMEOUT_S)
        except TimeoutError:
            self._failures.append(f"closing the HTTP session took more than {JOIN_TIMEOUT_S:g} s")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            self._failures.append(f"the HTTP thread was still running {JOIN_TIMEOUT_S:g} s after it was told to stop")
        else:
            self._loop.close()
        self.check()

    # -- used by both threads ----------------------------------------------------------------------------------

    def _start(self, coro: Coroutine, what: str) -> Future:
        if self._closed:
            coro.close()
            raise HttpPosterError(f"{what}: the poster is closed; make a new one")
        return asyncio.run_coroutine_threadsafe(coro, self._loop)

    def _cancel_open(self) -> None:
        with self._lock:
            futures = list(self._open.values())
        for future in futures:
            future.cancel()

    def _ended(self, exchange: HttpExchange, future: Future) -> None:
        exchange._finish(CancelledError() if future.cancelled() else future.exception())
        with self._lock:
            self._open.pop(exchange, None)

    def _note_failure(self, what: str, future: Future) -> None:
        if not future.cancelled() and future.exception() is not None:
            with self._lock:
                self._failures.append(f"{what}: {_described(future.exception())}")

    def _keep_failure(self, exchange: HttpExchange) -> None:
        if exchange._failed_unseen:
            with self._lock:
                self._failures.append(f"POST {exchange.url}: {exchange.problem}")

    # -- on the poster's own thread ----------------------------------------------------------------------------

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Each POST has its own connection: the server may close a kept-alive connection just as the next request is
            # written, and a POST is not repeated. The number of connections is not limited, since streams stay open.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    async def _exchange(self, exchange: HttpExchange, json: Any) -> None:
        async with self._get_session().post(exchange.url, json=json) as response:
            exchange._got_head(response.status)
            if response.content_type == "text/event-stream":
                stream = _EventStream()
                async for chunk in response.content.iter_any():
                    exchange.events.extend(stream.feed(chunk))
            else:
                exchange.body = _json_or_text(await response.text())

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


class _EventStream:
    """Decodes ``data:`` lines of a server-sent event stream, which may be split into chunks at any point."""

    def __init__(self) -> None:
        self._rest = b""
        self._ended = False

    def feed(self, chunk: bytes) -> list[Any]:
        """Return the events that this chunk completes; none after ``[DONE]``. SGLang sends each event as one line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in lines:
            if self._ended or not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                self._ended = True
            else:
                events.append(jsonlib.loads(data))
        return events


def _json_or_text(text: str) -> Any:
    try:
        return jsonlib.loads(text)
    except ValueError:
        return text


def _text_of(answer: Any) -> str:
    """Return the message of an error response as one line; SGLang, FastAPI and plain text have different formats."""
    while isinstance(answer, dict):
        answer = next((answer[key] for key in ("error", "message", "detail") if key in answer), str(answer))
    text = " ".join(str(answer).split()) or "(no text)"
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + "..."


def _was_cancelled(error: BaseException | None) -> bool:
    return isinstance(error, (CancelledError, asyncio.CancelledError))


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
