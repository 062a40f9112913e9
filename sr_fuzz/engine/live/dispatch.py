"""The dispatcher: runs inside a live scheduler, as the generator of its hook, and plays job after job.

After each job the engine is brought back to an empty state through its own doors: release, continue, abort all, drain,
flush. What cannot be brought back is said (`Reset.problem`), and the user's side replaces the engine: no script ever
starts from what another one left.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator

from sr_fuzz.engine.boot import Booted
from sr_fuzz.engine.live.channel import Channel
from sr_fuzz.engine.player import Player
from sr_fuzz.engine.process_messages import PROTOCOL, Attached, Done, Execute, Failed, Reset, Run, decode_job
from sr_fuzz.engine.stacks import sglang_folder
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.sglang_api import scheduler_state
from sr_fuzz.sglang_api.allocators import two_pools
from sr_fuzz.view.sessions import open_sessions, read_slots
from sr_fuzz.view.view import SchedulerView

# A drained engine has aborted everything: each request needs a step or two, results in flight some more.
_DRAIN_STEPS = 200
# The flush's answer comes in the step after the one that takes it; a data-parallel one waits for other ranks.
_FLUSH_STEPS = 50
# SGLang looks once in nine steps after sessions whose closing it has put off.
_CLOSE_STEPS = 30
# HTTP answers need no step of the scheduler once everything is sent; only a stuck server takes seconds.
_HTTP_S = 5.0
# Below the limit of the user's side for starting, so that a warm-up that sticks is reported as one.
_WARM_UP_S = 120.0


class Dispatcher:
    """``started`` is the monotonic time at which this process's part of the engine began."""

    def __init__(self, booted: Booted, channel: Channel, pid: int, started: float) -> None:
        self._booted = booted
        self._channel = channel
        self._pid = pid
        self._started = started
        self._player: Player | None = None
        self._played = 0

    def loop(self, warm_up: Generator) -> Generator:
        """The hook's generator; never ends by itself."""
        yield from warm_up
        self._channel.send(
            Attached(
                protocol=PROTOCOL,
                sglang_version=self._booted.sglang_version,
                sglang_folder=sglang_folder(),
                pid=self._pid,
                boot_s=time.monotonic() - self._started,
            )
        )
        while True:
            job = decode_job(self._channel.receive())
            yield from self._play(job)
            problem = yield from self._reset()
            self._player = None
            self._channel.send(Reset(problem))

    def scheduler_raised(self, error: BaseException) -> None:
        """SGLang's loop ended by an exception: it belongs to the job that is being played."""
        if self._player is not None:
            self._channel.send(self._player.judge(error))
        else:
            line = f"SGLang raised {type(error).__name__} while no script ran: {error}".splitlines()[0]
            self._channel.send(Failed(line, traceback.format_exc()))
        # The process ends now; what was sent must have left before.
        self._channel.close(linger_s=1.0)

    def _play(self, job: Run | Execute) -> Generator:
        hook = self._booted.hook
        self._booted.recorder.clear()
        self._booted.transport.reset()
        try:
            self._played += 1
            player = Player(self._booted, job, run_number=self._played)
            generator = player.generator()
        except Exception as error:
            self._channel.send(Failed(f"sr_fuzz itself failed: {error!r}", traceback.format_exc()))
            return
        self._player = player
        hook.watch(player.monitor)
        try:
            yield from generator
            reply: Done | Failed = player.done()
        except GeneratorExit:
            raise
        except BaseException as error:
            reply = player.judge(error)
        hook.watch(None)
        self._channel.send(reply)

    # -- back to an empty state --------------------------------------------------------------------------------

    def _reset(self) -> Generator[None, None, str]:
        """Returns what is wrong with the state afterwards; an empty text when it is as after booting."""
        if self._player is None:
            return ""  # nothing was played
        context, view = self._player.context, self._player.view
        if self._dirt(view):
            if view.paused or self._booted.transport.paused:
                context.continue_generation()
            context._release_exhausted_pools()
            context.abort_all()
            yield from self._step_until(lambda: self._is_drained(view), _DRAIN_STEPS)
            yield from self._close_sessions(context)
            context.flush_cache()
            yield from self._step_until(lambda: not self._dirt(view), _FLUSH_STEPS)
        waiting = self._booted.transport.settle(_HTTP_S)
        return self._dirt(view) or waiting

    def _close_sessions(self, context: ScriptedContext) -> Generator[None, None, None]:
        scheduler = self._booted.scheduler
        for session_id in list(open_sessions(scheduler)):
            context.control("close_session", session_id=session_id)
        if open_sessions(scheduler):
            yield from self._step_until(lambda: not open_sessions(scheduler), _CLOSE_STEPS)

    def _step_until(self, holds: Callable[[], bool], steps: int) -> Generator[None, None, None]:
        """At most ``steps`` steps, until ``holds`` for as long as the pipeline may hide something."""
        quiet = 0
        for _ in range(steps):
            yield
            quiet = quiet + 1 if holds() else 0
            if quiet == scheduler_state.pipeline_steps(self._booted.scheduler):
                return

    def _is_drained(self, view: SchedulerView) -> bool:
        free = len(view.scheduler.req_to_token_pool.free_slots) + len(read_slots(view.scheduler))
        return view.scheduler.is_fully_idle() and free == view.num_rows and not self._booted.proxy.pending

    def _dirt(self, view: SchedulerView) -> str:
        view.refresh(view.now.step)
        if view.missing.or_default(lambda: view.paused, False):
            return "the engine is paused"
        if view.holding:
            return "an exhauster holds something"
        if open_sessions(view.scheduler):
            return f"{len(open_sessions(view.scheduler))} sessions are open"
        if not self._is_drained(view):
            return "the engine is not idle"
        return view.missing.or_default(lambda: _not_free(view), "")


def _not_free(view: SchedulerView) -> str:
    """What of pages and rows is not free, though nothing runs."""
    free = _free_pages(view)
    if free != view.num_pages:
        return f"{free} of {view.num_pages} pages are free after a flush"
    rows = len(set(view.now.free_rows))
    return "" if rows == view.num_rows else f"{rows} of {view.num_rows} request rows are free"


def _free_pages(view: SchedulerView) -> int:
    """Free pages, each counted once; of two pools what SGLang itself counts."""
    if two_pools(view.allocator):
        return view.allocator.available_size() // view.page_size
    return len(set(view.now.free_pages))


def no_warm_up() -> Generator:
    """For an engine that is told to skip SGLang's warm-up."""
    return
    yield


def warm_up(booted: Booted) -> Generator:
    """Turn the loop until SGLang's own warm-up request has come and is done, so that no script sees it."""
    deadline = time.monotonic() + _WARM_UP_S
    quiet = 0
    while quiet < scheduler_state.pipeline_steps(booted.scheduler):
        if time.monotonic() > deadline:
            seen = booted.proxy.work_reqs_seen
            raise RuntimeError(f"SGLang's warm-up was not over within {_WARM_UP_S:g} s ({seen} requests had come)")
        yield
        idle = booted.proxy.work_reqs_seen > 0 and booted.scheduler.is_fully_idle()
        quiet = quiet + 1 if idle else 0
