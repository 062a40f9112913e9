"""The epilogue that follows every script, in which an engine shows what it has lost.

The epilogue releases everything that is held, continues, lets all requests run to their end within a bound derived from
the work left, checks what must hold then, flushes, and checks once more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator

from sr_fuzz.play.monitor import Monitor
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.script import EngineConfig
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView

# Factor of the drain's bound: each token of work that waits may be done several times when requests are retracted again
# and again, and admission may wait; 6 is twice what the tightest pools of the default set were seen to need.
_REWORK = 6
# Steps that do nothing: results in flight, the decode of an abort, the patience of the liveness check itself.
_SLACK = 80
# The flush's answer comes in the step after the one that sends it.
_FLUSH_STEPS = 3

# An HTTP client's answer needs no step once it was sent; it takes milliseconds, or never comes on a stuck server.
_ANSWER_S = 10.0

# A session that was closed while a turn ran is removed at SGLang's next check; these are a second (8 steps) apart.
_CLOSE_STEPS = 24
# Steps without a forward after which sessions are closed, because nothing can evict what they keep.
_STUCK_STEPS = 12


class Epilogue:
    """Plays the epilogue of one run."""

    def __init__(
        self,
        config: EngineConfig,
        context: ScriptedContext,
        view: SchedulerView,
        monitor: Monitor,
        release: Callable[[], None],
    ) -> None:
        """``release`` gives back what the script's exhausters hold."""
        self._config = config
        self._context = context
        self._view = view
        self._monitor = monitor
        self._release = release

    def play(self) -> Generator[None, None, None]:
        """The generator for the hook."""
        self._monitor.note_action("epilogue: release, continue, drain")
        self._monitor.attempt("release", self._release)
        self._monitor.attempt("continue", self._context.continue_generation)
        yield
        yield from self._drain()
        if self._open_sessions:
            yield from self._close_sessions()
        # One more step, so that an idle engine has run its own idle checks.
        yield
        # Any request that is not answered by then is found by the checks that follow.
        self._context.settle(_ANSWER_S)
        self._monitor.check_end()
        if self._view.unanswered():
            return  # only when `Liveness` is switched off: an engine that is not idle may refuse
        self._monitor.note_action("epilogue: flush")
        if not self._monitor.attempt("flush_cache", self._context.flush_cache):
            return
        for _ in range(_FLUSH_STEPS):
            yield
        self._monitor.check_flushed()

    def _drain(self) -> Generator[None, None, None]:
        """Run steps until all requests are answered, the bound is reached, or sessions hold what the others need."""
        idle, forwards = 0, self._view.forward_steps
        steps, bound, known = 0, self._work_left(), len(self._view.requests)
        while steps < bound:
            if not self._view.unanswered() and self._context.is_fully_idle and not self._context.put_off:
                if not self._context.await_samples(_ANSWER_S):
                    return
            yield
            steps += 1
            if len(self._view.requests) > known:
                # These are the copies of a request for several answers, which appear when its prompt has been
                # prefilled.
                known, bound = len(self._view.requests), steps + self._work_left()
            idle = idle + 1 if self._view.forward_steps == forwards else 0
            forwards = self._view.forward_steps
            if idle >= _STUCK_STEPS and self._view.sessions_hold_memory:
                return

    def _close_sessions(self) -> Generator[None, None, None]:
        """Close the open sessions, and abort turns that wait for each other.

        A turn may wait for what the turn of another session keeps.
        """
        self._monitor.note_action("epilogue: close sessions")
        for session_id in self._open_sessions:
            close = functools.partial(self._context.control, "close_session", session_id=session_id)
            self._monitor.attempt("close_session", close)
        yield
        yield from self._drain()
        if self._view.sessions_hold_memory and self._view.unanswered():
            self._monitor.attempt("abort_all", self._context.abort_all)
            yield
            yield from self._drain()
        for _ in range(_CLOSE_STEPS):
            if not self._open_sessions:
                return
            yield

    @property
    def _open_sessions(self) -> list[str]:
        """The open sessions as clients know them; where that could not be followed, as SGLang reports them."""
        return self._view.missing.or_default(lambda: self._view.sessions.open, self._view.open_sessions)

    def _work_left(self) -> int:
        """Steps that a healthy engine needs at most for the unanswered requests, retractions included."""
        chunk = self._config.chunked_prefill_size
        steps = 0
        by_rid = {req.rid: req for req in self._view.requests}
        for rid in self._view.unanswered():
            req = by_rid.get(rid)
            if req is None:
                steps += _SLACK
                continue
            steps += self._view.missing.or_default(functools.partial(_steps_left, req, chunk), _SLACK)
        return _REWORK * steps + _SLACK


def _steps_left(req: Request, chunk: int) -> int:
    prefills = 1 if chunk < 0 else -(-len(req.origin_input_ids) // chunk)
    return prefills + max(1, req.max_new_tokens - len(req.output_ids))
