"""The dispatcher: it runs in a live scheduler, as the generator of its hook, and plays one job after another.

After each job the dispatcher resets the engine to an empty state through the engine's own calls: release, continue,
abort all, drain, flush. If that fails it reports the reason (`Reset.problem`), and the user's process replaces the
engine, so that no script starts from the state that another one left.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator

from sr_fuzz.engine.boot import Booted
from sr_fuzz.engine.live.channel import Channel
from sr_fuzz.engine.player import Player
from sr_fuzz.engine.process_messages import (
    PROTOCOL,
    Attached,
    Done,
    Execute,
    Failed,
    Reset,
    Run,
    decode_job,
)
from sr_fuzz.engine.stacks import sglang_folder
from sr_fuzz.engine.step_limit import StepCounter
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.sglang_api import scheduler_state
from sr_fuzz.sglang_api.allocators import two_pools
from sr_fuzz.view.sessions import open_sessions, read_slots
from sr_fuzz.view.view import SchedulerView

# To drain the engine all requests are aborted: each one needs a step or two, and results in flight some more.
_DRAIN_STEPS = 200
# The reply to a flush comes in the step after the one that receives it; with data parallelism it waits for other ranks.
_FLUSH_STEPS = 50
# Once in nine steps SGLang checks the sessions whose close it has deferred.
_CLOSE_STEPS = 30
# HTTP responses need no step of the scheduler once everything is sent; only a stuck server takes seconds.
_HTTP_S = 5.0
# Below the start limit of the user's process, so that a warm-up that hangs is reported as such.
_WARM_UP_S = 120.0


class Dispatcher:
    """The dispatcher of one scheduler process; ``started`` is the monotonic time at which our plugin began in it."""

    def __init__(
        self, booted: Booted, channel: Channel, steps: StepCounter, *, pid: int, started: float
    ) -> None:
        self._booted = booted
        self._channel = channel
        self._steps = steps
        self._pid = pid
        self._started = started
        self._player: Player | None = None
        self._played = 0

    def loop(self, warm_up: Generator) -> Generator:
        """The hook's generator; it never ends by itself."""
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
        """Report an exception that ended SGLang's event loop as the result of the job that is being played."""
        if self._player is not None:
            self._channel.send(self._player.judge(error))
        else:
            line = f"SGLang raised {type(error).__name__} while no script ran: {error}".splitlines()[0]
            self._channel.send(Failed(line, traceback.format_exc()))
        # The process ends now, so sent messages must be delivered before.
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
        self._steps.set(hook.steps)
        hook.on_step = self._steps.set
        try:
            yield from generator
            reply: Done | Failed = player.done()
        except GeneratorExit:
            raise
        except BaseException as error:
            reply = player.judge(error)
        hook.watch(None)
        hook.on_step = None
        self._channel.send(reply)

    # -- back to an empty state --------------------------------------------------------------------------------

    def _reset(self) -> Generator[None, None, str]:
        """Reset the engine; returns the problem with its state, an empty text when it is as after a boot."""
        if self._player is None:
            return ""  # nothing was played
        context, view = self._player.context, self._player.view
        if self._dirt(view):
            if view.missing.or_default(lambda: view.paused, True) or self._booted.transport.paused:
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
        """Make at most ``steps`` steps, until ``holds`` is true for as many steps as the pipeline may hide a result."""
        quiet = 0
        for _ in range(steps):
            yield
            quiet = quiet + 1 if holds() else 0
            if quiet == scheduler_state.pipeline_steps(self._booted.scheduler):
                return

    def _is_drained(self, view: SchedulerView) -> bool:
        if not view.scheduler.is_fully_idle() or self._booted.proxy.pending:
            return False
        return view.missing.or_default(lambda: _all_rows_accounted_for(view), True)

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


def _all_rows_accounted_for(view: SchedulerView) -> bool:
    """Whether each row is free or kept by a session."""
    free = len(view.scheduler.req_to_token_pool.free_slots) + len(read_slots(view.scheduler))
    return free == view.num_rows


def _not_free(view: SchedulerView) -> str:
    """Return which pages or rows are not free although no request runs; an empty text when all are free."""
    free = _free_pages(view)
    if free != view.num_pages:
        return f"{free} of {view.num_pages} pages are free after a flush"
    rows = len(set(view.now.free_rows))
    return "" if rows == view.num_rows else f"{rows} of {view.num_rows} request rows are free"


def _free_pages(view: SchedulerView) -> int:
    """Return the number of distinct free pages; with two pools, the number that SGLang itself counts."""
    if two_pools(view.allocator):
        return view.allocator.available_size() // view.page_size
    return len(set(view.now.free_pages))


def no_warm_up() -> Generator:
    """The warm-up of an engine that is told to skip SGLang's warm-up."""
    return
    yield


def warm_up(booted: Booted) -> Generator:
    """Step the event loop until SGLang's own warm-up request has arrived and finished, so that no script sees it."""
    deadline = time.monotonic() + _WARM_UP_S
    quiet = 0
    while quiet < scheduler_state.pipeline_steps(booted.scheduler):
        if time.monotonic() > deadline:
            seen = booted.proxy.work_reqs_seen
            raise RuntimeError(f"SGLang's warm-up was not over within {_WARM_UP_S:g} s ({seen} requests had come)")
        yield
        idle = booted.proxy.work_reqs_seen > 0 and booted.scheduler.is_fully_idle()
        quiet = quiet + 1 if idle else 0
