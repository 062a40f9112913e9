"""A fake of SGLang's server, with the traits of its tokenizer manager that matter to a transport.

It refuses within the stream, holds requests back while paused, drops aborts of unknown requests, sends one flush at a
time, and ends a pause in mode ``abort`` only when every request that it did not hold back is answered. A request for
several samples is sent later than one that came after it, first as a prefill, then as its samples, under other ids.
"""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import zmq
from aiohttp import web

from sr_fuzz.runtime.http_transport import HttpTransport

WAIT_S = 20
LONGEST = 16


class TokenizedGenerateReqInput(SimpleNamespace):
    pass


class PauseGenerationReqInput(SimpleNamespace):
    pass


class ContinueGenerationReqInput(SimpleNamespace):
    pass


class AbortReq(SimpleNamespace):
    pass


class FlushCacheReqInput(SimpleNamespace):
    pass


class OpenSessionReqInput(SimpleNamespace):
    pass


class CloseSessionReqInput(SimpleNamespace):
    pass


class FakeServer:
    """Runs on the server's thread, except for `answer`, `answer_flush`, `hang_up` and `down`."""

    def __init__(self, socket):
        self._socket = socket
        self.bodies = []
        self.down = False
        self.delay_s = 0.0
        """For how long the next call blocks the event loop, as on a slow machine."""
        self.lost = None
        self.withheld = None
        """A class of which messages are kept back, or None."""
        self.samples_s = 0.0
        """How long it takes to send the samples once their prefill is answered."""
        self.abort_every_s = 0.02
        self.leaks = False
        """Whether the end of a request is overlooked, so that a pause in mode ``abort`` never ends."""

    def setup(self):
        self.loop = asyncio.get_running_loop()
        self.paused = False
        self.pause_cond = asyncio.Condition()
        self.known = {}
        self.readers = 0
        self.abort_sent = set()
        self.flush_lock = asyncio.Lock()
        self.flush_answered = asyncio.Event()
        self.opening = set()

    @property
    def handlers(self):
        names = ("generate", "pause_generation", "continue_generation", "abort_request", "flush_cache")
        names += ("open_session", "close_session")
        return {f"/{name}": getattr(self, name) for name in names}

    def answer(self, *rids):
        """The scheduler's last message about these requests."""
        for rid in rids:
            self.loop.call_soon_threadsafe(lambda rid=rid: self.known[rid].set())

    def hang_up(self, rid):
        self.lost = rid
        self.answer(rid)

    def answer_flush(self):
        self.loop.call_soon_threadsafe(self.flush_answered.set)

    def send(self, message):
        if self.withheld is None or not isinstance(message, self.withheld):
            self._socket.send_pyobj(message)

    async def read(self, request):
        body = await request.json()
        self.bodies.append((request.path, body))
        delay_s, self.delay_s = self.delay_s, 0.0
        time.sleep(delay_s)
        if self.down:
            raise web.HTTPServiceUnavailable(text="shutting down")
        return body

    async def generate(self, request):
        body = await self.read(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            event = await self.run(body)
        except ValueError as error:
            event = {"error": {"message": str(error), "code": 400}}
        if self.lost == body["rid"]:
            request.transport.abort()
        await response.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
        return response

    async def run(self, body):
        rid = body["rid"]
        if rid in self.known:
            raise ValueError(f"Duplicate request ID detected: {rid}")
        self.known[rid] = asyncio.Event()
        try:
            async with self.pause_cond:
                await self.pause_cond.wait_for(lambda: not self.paused)
            if len(body["input_ids"]) > LONGEST:
                raise ValueError(f"The input is longer than\n{LONGEST} tokens")
            self.readers += 1
            fields = {name: value for name, value in body.items() if name != "stream"}
            if body["sampling_params"].get("n", 1) > 1:
                await self.run_several(fields)
            else:
                self.send(TokenizedGenerateReqInput(**fields))
                await self.known[rid].wait()
            self.readers -= not self.leaks
        finally:
            self.known.pop(rid, None)
        return {"rid": rid}

    async def run_several(self, fields):
        await asyncio.sleep(0.05)
        n, rid = fields["sampling_params"]["n"], fields["rid"]
        await self.send_as(fields, f"prefill of {rid}").wait()
        await asyncio.sleep(self.samples_s)
        for event in [self.send_as(fields, f"{rid} {number}") for number in range(n)]:
            await event.wait()

    def send_as(self, fields, rid):
        self.known[rid] = asyncio.Event()
        self.send(TokenizedGenerateReqInput(**fields | {"rid": rid}))
        return self.known[rid]

    async def pause_generation(self, request):
        mode = (await self.read(request))["mode"]
        async with self.pause_cond:
            self.paused = True
            if mode != "abort":
                self.send(PauseGenerationReqInput(mode=mode))
            else:
                while True:
                    self.send(AbortReq(rid="", abort_all=True))
                    if not self.readers:
                        break
                    await asyncio.sleep(self.abort_every_s)
        return web.json_response({"status": "ok"})

    async def continue_generation(self, request):
        await self.read(request)
        async with self.pause_cond:
            self.paused = False
            self.send(ContinueGenerationReqInput())
            self.pause_cond.notify_all()
        return web.json_response({"status": "ok"})

    async def abort_request(self, request):
        body = await self.read(request)
        rid = body["rid"]
        if body["abort_all"]:
            self.send(AbortReq(rid="", abort_all=True))
        elif rid in self.known and rid not in self.abort_sent:
            self.abort_sent.add(rid)
            self.send(AbortReq(rid=rid, abort_all=False))
        return web.Response()

    async def flush_cache(self, request):
        await self.read(request)
        async with self.flush_lock:
            self.flush_answered.clear()
            self.send(FlushCacheReqInput())
            await self.flush_answered.wait()
        return web.Response(text="flushed")

    async def open_session(self, request):
        body = await self.read(request)
        if body["session_id"] in self.opening:
            raise web.HTTPBadRequest(text="Failed to open the session.")
        self.opening.add(body["session_id"])
        self.send(OpenSessionReqInput(**body))
        return web.json_response(body["session_id"])

    async def close_session(self, request):
        self.send(CloseSessionReqInput(**await self.read(request)))
        return web.Response()


class Engine:
    """The complete setup: the fake server, the proxy before its socket, and a transport."""

    def __init__(self, server, proxy, poster, url):
        self.server, self.proxy, self.poster, self.url = server, proxy, poster, url
        self.transport = self.new_transport()

    def new_transport(self, **options):
        return HttpTransport(self.proxy, self.poster, self.url, **{"arrival_timeout_s": WAIT_S, **options})

    def send(self, rid, length=2, n=1, **fields):
        sampling = {"max_new_tokens": 4} | ({"n": n} if n > 1 else {})
        self.transport.generate(rid=rid, input_ids=range(length), sampling=sampling, **fields)

    def step(self):
        """What the scheduler receives before the head of the next step, as short words."""
        words = []
        while True:
            try:
                words.append(_word(self.proxy.recv_pyobj(zmq.NOBLOCK)))
            except zmq.Again:
                self.proxy.next_step()
                return words


def _word(message):
    kind = type(message).__name__
    if kind == "AbortReq":
        return "abort all" if message.abort_all else f"abort {message.rid}"
    return {
        "TokenizedGenerateReqInput": lambda: message.rid,
        "PauseGenerationReqInput": lambda: f"pause {message.mode}",
        "ContinueGenerationReqInput": lambda: "continue",
        "FlushCacheReqInput": lambda: "flush",
    }[kind]()
