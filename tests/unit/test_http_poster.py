"""The background poster forwards the server's answers piece by piece, and reports every failure."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from aiohttp import web
from local_server import serving

from sr_fuzz.runtime.http_poster import BackgroundHttpPoster, HttpPosterError

WAIT_S = 20


@pytest.fixture
def poster():
    poster = BackgroundHttpPoster()
    yield poster
    poster.reset(cancel_open=True)
    poster.close()


@pytest.fixture(scope="module")
def url():
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"got": await request.json()})

    async def chunks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for chunk in await request.json():
            await response.write(chunk.encode("latin-1"))
            await asyncio.sleep(0.01)
        return response

    async def refuse(request: web.Request) -> web.Response:
        body = await request.json()
        if isinstance(body, str):
            return web.Response(text=body, status=400)
        return web.json_response(body, status=400)

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"n": 1}\n\n')
        await asyncio.sleep(3600)
        return response

    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    handlers = {"/echo": echo, "/chunks": chunks, "/refuse": refuse, "/hang": hang, "/silent": silent}
    with serving(handlers) as url:
        yield url


@pytest.fixture(scope="module")
def dead_url():
    """A port on which no server listens, and on which none can start to listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/generate"


def test_a_json_answer_is_decoded(poster, url):
    exchange = poster.send(f"{url}/echo", {"a": [1, 2]})
    assert exchange.wait(WAIT_S) and exchange.done
    assert (exchange.status, exchange.body, exchange.problem) == (200, {"got": {"a": [1, 2]}}, None)


@pytest.mark.parametrize(
    "chunks",
    [
        ['data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'],
        ["da", 'ta: {"n"', ": 1}", "\n", '\ndata: {"n": 2}\n\nda', "ta: [DO", "NE]\n\n"],
        ['data: {"n": 1}\r\n\r\n: a comment\r\ndata:{"n": 2}\r\n\r\ndata: [DONE]\r\n\r\ndata: {"n": 3}\r\n\r\n'],
    ],
    ids=["whole", "split", "other line ends, and more after the end"],
)
def test_events_are_the_same_however_the_stream_is_cut(poster, url, chunks):
    exchange = poster.send(f"{url}/chunks", chunks)
    assert exchange.wait(WAIT_S)
    assert exchange.events == [{"n": 1}, {"n": 2}]
    assert exchange.problem is None


def test_a_character_may_be_cut_in_two(poster, url):
    # The server encodes as latin-1, so these are the two bytes of one UTF-8 character.
    exchange = poster.send(f"{url}/chunks", ['data: {"text": "\xc3', '\xa9"}\n\n'])
    assert exchange.wait(WAIT_S)
    assert exchange.events == [{"text": "é"}]


def test_events_are_there_before_the_end(poster, url):
    exchange = poster.send(f"{url}/hang", {})
    assert exchange.wait_for_head(WAIT_S) and exchange.status == 200
    while not exchange.events and not exchange.wait(0.01):
        pass
    assert exchange.events == [{"n": 1}]
    assert not exchange.done


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "prompt of 9\ntokens is too long"}}, "prompt of 9 tokens is too long"),
        ({"detail": "no such field"}, "no such field"),
        ({"object": "error", "message": "bad"}, "bad"),
        ("plain words", "plain words"),
        ("", "(no text)"),
        ("x" * 400, "x" * 300 + "..."),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_on_one_line(poster, url, body, text):
    exchange = poster.send(f"{url}/refuse", body)
    assert exchange.wait(WAIT_S)
    assert exchange.refusal == (400, text)
    assert exchange.problem == f"HTTP 400: {text}"
    poster.check()  # the server answered: nothing failed in the background


def test_an_error_within_the_stream_is_a_refusal(poster, url):
    error = 'data: {"error": {"message": "Duplicate request ID", "code": 409}}\n\ndata: [DONE]\n\n'
    exchange = poster.send(f"{url}/chunks", [error])
    assert exchange.wait(WAIT_S)
    assert exchange.status == 200
    assert exchange.problem == "HTTP 409: Duplicate request ID"


def test_many_exchanges_may_be_open_at_once(poster, url):
    # More than the 100 connections that aiohttp allows by default.
    held = [poster.send(f"{url}/hang", {}) for _ in range(110)]
    assert poster.send(f"{url}/echo", 1).wait(WAIT_S)
    assert not any(exchange.done for exchange in held)


def test_a_failed_exchange_is_raised_once(poster, dead_url):
    poster.send(dead_url, {}).wait(WAIT_S)
    with pytest.raises(HttpPosterError) as caught:
        poster.check()
    assert str(caught.value).startswith(f"POST {dead_url}: ClientConnectorError: ")
    assert "\n" not in str(caught.value)
    poster.check()


def test_a_failure_that_was_looked_at_is_not_raised(poster, dead_url):
    exchange = poster.send(dead_url, {})
    assert exchange.wait(WAIT_S)
    assert "Cannot connect" in exchange.problem
    poster.check()


def test_a_failed_coroutine_is_raised_with_its_name(poster):
    async def goes_wrong() -> None:
        raise ValueError("two\nlines")

    poster.submit_coro(goes_wrong())
    poster.submit_coro(goes_wrong())
    with pytest.raises(HttpPosterError, match=r"goes_wrong: ValueError: two lines \(and 1 more\)$"):
        poster.close()


def test_post_reads_the_answer_within_ones_own_coroutine(poster, url):
    ended = threading.Event()

    async def both() -> None:
        await poster.post(f"{url}/echo", {})
        await poster.post(f"{url}/refuse", "no")
        ended.set()

    poster.submit_coro(both())
    assert ended.wait(WAIT_S)
    poster.check()


def test_reset_forgets_what_is_finished_and_keeps_what_failed(poster, url, dead_url):
    finished, failed, open_one = (
        poster.send(f"{url}/echo", 1),
        poster.send(dead_url, {}),
        poster.send(f"{url}/silent", {}),
    )
    assert finished.wait(WAIT_S) and failed.wait(WAIT_S)
    poster.reset()
    assert poster.exchanges == [open_one]
    assert not open_one.done
    with pytest.raises(HttpPosterError, match="ClientConnectorError"):
        poster.check()


def test_reset_cancels_what_is_open_if_asked(poster, url):
    exchange = poster.send(f"{url}/silent", {})
    poster.reset(cancel_open=True)
    assert exchange.wait(WAIT_S)
    assert exchange.problem == "cancelled"
    assert poster.exchanges == []
    poster.check()


def test_close_ends_the_thread_whatever_is_open_and_may_be_called_again(url):
    before = set(threading.enumerate())
    poster = BackgroundHttpPoster()
    exchange = poster.send(f"{url}/hang", {})
    assert exchange.wait_for_head(WAIT_S)
    assert set(threading.enumerate()) > before
    poster.close()
    poster.close()
    assert set(threading.enumerate()) == before
    assert exchange.done
    with pytest.raises(HttpPosterError, match="the poster is closed"):
        poster.send(f"{url}/echo", {})


def test_close_raises_what_nobody_looked_at_and_still_ends_the_thread(dead_url):
    before = set(threading.enumerate())
    poster = BackgroundHttpPoster()
    poster.send(dead_url, {}).wait(WAIT_S)
    with pytest.raises(HttpPosterError, match="ClientConnectorError"):
        poster.close()
    assert set(threading.enumerate()) == before
