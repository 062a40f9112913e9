"""Faults for tests of the live engines: each makes SGLang end a script in another way."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from sr_fuzz.faults import reached, triggered


@contextmanager
def broken_in_many_ways():
    """A pause raises, an abort of one request is a segmentation fault, an eviction never returns.

    These are three faults in one, so that a test needs one engine for all of them.
    """
    from sglang.srt.managers.scheduler import Scheduler

    def raises(self, message):
        raise RuntimeError("this scheduler cannot pause")

    def dies(self, message):
        if not message.abort_all:
            os.kill(os.getpid(), signal.SIGSEGV)
        return abort(self, message)

    def hangs(self, *args, **kwargs):
        while True:
            time.sleep(0.01)

    abort = Scheduler.abort_request
    Scheduler.pause_generation = raises
    Scheduler.abort_request = dies
    Scheduler.continue_generation = hangs
    yield


@contextmanager
def loses_a_row_in_company():
    """The second request that is admitted in a process keeps its row forever: a script played alone does not show
    it."""
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

    free = ReqToTokenPool.free
    freed = []

    def forgets(self, req):
        freed.append(req.rid)
        reached()
        if len(freed) == 2:
            triggered()
            return None
        return free(self, req)

    ReqToTokenPool.free = forgets
    yield


@contextmanager
def broken_answers():
    """The tokenizer manager tells clients something else than the scheduler did; how, says the request's name.

    ``short``: the last token is missing. ``other``: another end. ``failed``: an error in place of the end. ``noend``:
    an answer without what tells that it has ended.
    """
    from sglang.srt.managers.tokenizer_manager import TokenizerManager

    handle, answer = TokenizerManager._handle_batch_output, TokenizerManager.generate_request

    async def cut(self, recv_obj):
        for index, rid in enumerate(getattr(recv_obj, "rids", ())):
            if recv_obj.finished_reasons[index] is None:
                continue
            if rid.startswith("short"):
                recv_obj.output_ids[index] = recv_obj.output_ids[index][:-1]
            if rid.startswith("other"):
                recv_obj.finished_reasons[index] = {"type": "stop", "matched": 1}
        return await handle(self, recv_obj)

    async def told(self, obj, *args, **kwargs):
        async for out in answer(self, obj, *args, **kwargs):
            if obj.rid.startswith("failed") and out["meta_info"]["finish_reason"]:
                raise ValueError("the answer is lost")
            if obj.rid.startswith("noend"):
                out = {name: value for name, value in out.items() if name != "meta_info"}
            yield out

    TokenizerManager._handle_batch_output = cut
    TokenizerManager.generate_request = told
    yield


@contextmanager
def held_up_in_the_server():
    """A request whose name begins with ``lost`` is not sent to the scheduler; after one that begins with ``leaky`` a
    pause in mode ``abort`` waits for ever."""
    from sglang.srt.managers.tokenizer_manager import TokenizerManager

    send = TokenizerManager._send_one_request

    async def forgets(self, tokenized_obj):
        if tokenized_obj.rid.startswith("leaky"):
            self.model_update_lock._readers += 1
        if not tokenized_obj.rid.startswith("lost"):
            await send(self, tokenized_obj)

    TokenizerManager._send_one_request = forgets
    yield


@contextmanager
def deaf_to_aborts():
    """Aborts have no effect."""
    from sglang.srt.managers.scheduler import Scheduler

    Scheduler.abort_request = lambda self, message: triggered()
    yield


@contextmanager
def killed_at_an_abort_of_all():
    """What the kernel does to a process when memory runs out, or a user with ``kill -9``."""
    from sglang.srt.managers.scheduler import Scheduler

    abort = Scheduler.abort_request

    def dies(self, message):
        if message.abort_all:
            os.kill(os.getpid(), signal.SIGKILL)
        return abort(self, message)

    Scheduler.abort_request = dies
    yield


@contextmanager
def cannot_boot_small_pools():
    """One configuration of several cannot be booted."""
    from sglang.srt.managers.scheduler import Scheduler

    make = Scheduler.__init__

    def refuse(self, server_args, *args, **kwargs):
        if server_args.max_total_tokens == 64:
            raise ValueError("this pool is too small")
        return make(self, server_args, *args, **kwargs)

    Scheduler.__init__ = refuse
    yield


@contextmanager
def door_of_the_tokenizer_manager():
    """No fault: like the HTTP server, the local engine refuses a request that is longer than the context."""
    from sr_fuzz.runtime.transport import LocalTransport
    from sr_fuzz.script.actions import CONTEXT_LENGTH
    from sr_fuzz.script.errors import RequestRefused

    generate = LocalTransport.generate

    def refusing(self, *, rid, input_ids, sampling, **fields):
        if len(input_ids) + sampling["max_new_tokens"] > CONTEXT_LENGTH:
            raise RequestRefused(rid, 400, "longer than the context")
        generate(self, rid=rid, input_ids=input_ids, sampling=sampling, **fields)

    LocalTransport.generate = refusing
    yield


@contextmanager
def waits_for_a_kill():
    """At an abort of all requests the scheduler says where it is, in the file that ``SR_FUZZ_TEST_MARK`` names, and
    waits to be killed. Once the file is there it goes on as usual."""
    from sglang.srt.managers.scheduler import Scheduler

    abort = Scheduler.abort_request
    mark = Path(os.environ["SR_FUZZ_TEST_MARK"])

    def waits(self, message):
        if message.abort_all and not mark.exists():
            ready = mark.with_suffix(".new")
            ready.write_text(str(os.getpid()))
            ready.rename(mark)
            time.sleep(1000)
        return abort(self, message)

    Scheduler.abort_request = waits
    yield


@contextmanager
def ends_its_boot():
    """A scheduler that is nearly made waits to be killed, and says so as `waits_for_a_kill` does; once that file is
    there it is refused instead, and the error names where it would report its load."""
    from sglang.srt.managers.scheduler import Scheduler

    make = Scheduler.__init__
    mark = Path(os.environ["SR_FUZZ_TEST_MARK"])

    def refuse(self, *args, **kwargs):
        make(self, *args, **kwargs)
        if not mark.exists():
            mark.with_suffix(".unfinished").write_text(str(os.getpid()))
            mark.with_suffix(".unfinished").rename(mark)
            time.sleep(1000)
        assert Path(self.load_snapshot_writer.path).exists()
        raise ValueError(f"refused: {self.load_snapshot_writer.path}")

    Scheduler.__init__ = refuse
    yield
