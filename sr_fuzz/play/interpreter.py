"""Plays a script: actions become calls on the context, steps become yields; then `sr_fuzz.play.epilogue` follows.

This is the only place that turns actions into calls. Actions between two steps are sent at the head of the same step,
in order. An action on a name that does not exist (yet, or any more) is sent all the same: the engine must cope with it.

Request ids are the script's names with a suffix that begins with a dot (`ScriptedContext.rid_suffix`). SGLang aborts by
rid *prefix*; with the dot no name is a prefix of another (``r1.`` is not a prefix of ``r10.``), so that a script can
abort one request alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from msgspec import structs

from sr_fuzz import script as s
from sr_fuzz.oracle.function import all_prompt_tokens
from sr_fuzz.oracle.settings import output_window
from sr_fuzz.play.epilogue import Epilogue
from sr_fuzz.play.monitor import Monitor
from sr_fuzz.play.request_fields import embedding_fields, generate_fields
from sr_fuzz.play.stages import Progress, condition, reached
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.script.actions import CONTEXT_LENGTH
from sr_fuzz.script.errors import RequestRefused
from sr_fuzz.script.text import action_text
from sr_fuzz.sglang_api import messages
from sr_fuzz.view.view import SchedulerView

# The hyphen keeps these ids apart from those of the script's own requests: no name has one.
_BALLAST_PREFIX = "ballast-"

_Sender = TypeVar("_Sender", bound=Callable[..., None])


_SENDERS: dict[type, Callable[[Interpreter, Any], None]] = {}
"""The method that sends each kind of action; the kinds that only step are missing."""


def _sends(kind: type) -> Callable[[_Sender], _Sender]:
    def register(sender: _Sender) -> _Sender:
        _SENDERS[kind] = sender
        return sender

    return register


class Interpreter:
    """Plays one run of one script."""

    def __init__(self, script: s.Script, context: ScriptedContext, view: SchedulerView, monitor: Monitor) -> None:
        self._script = script
        self._context = context
        self._view = view
        self._monitor = monitor
        self._prompts = all_prompt_tokens(script.actions, output_window(script.config.model))
        self._starts = {action.name: action for action in script.actions if isinstance(action, s.StartReq)}
        self._ballast: list[str] = []
        self._ballast_sent = 0
        self._paused = False
        self._rooms = 0
        self._epilogue = Epilogue(script.config, context, view, monitor, lambda: self._release(s.Release()))
        self.notes: dict[str, None] = {}
        """Remarks on what the script did that an HTTP client could not have done."""

    def play(self) -> Generator[None, None, None]:
        """The generator for the hook."""
        for action in self._script.actions:
            self._monitor.note_action(action_text(action))
            self._monitor.reach.note_action(action, self._rid(getattr(action, "name", "")))
            if isinstance(action, s.Step):
                for _ in range(action.n):
                    yield
            elif isinstance(action, s.StepUntil):
                yield from self._step_until(action)
            else:
                self._send(action)
        self._monitor.reach.end_of_script()
        yield from self._epilogue.play()

    def _send(self, action: s.Action) -> None:
        self._monitor.attempt(str(action.__struct_config__.tag), lambda: _SENDERS[type(action)](self, action))

    def _rid(self, name: str) -> str:
        """The request id for a name of the script."""
        return name + self._context.rid_suffix

    # -- actions -----------------------------------------------------------------------------------------------

    @_sends(s.StartReq)
    def _start_req(self, action: s.StartReq) -> None:
        if self._paused:
            self.notes["a request was sent while paused; the HTTP server holds it back until continue"] = None
        request = {"rid": self._rid(action.name), "input_ids": self._prompts[action.name]}
        if action.prompt.after is not None:
            self._monitor.reach.note_history(request["rid"], len(self._prompts[action.prompt.after]))
        try:
            if self._script.config.is_embedding:
                self._context.start_embedding(**request, **embedding_fields(action))
            else:
                self._context.start_tokens(**request, **self._generate_fields(action))
        except RequestRefused as refused:
            # This is legal: the prompt is too long for the context, or the name is in use. The scheduler would have
            # aborted the request.
            self.notes[f"{action.name} was refused by the HTTP server: {refused.text[:200]}"] = None

    def _generate_fields(self, action: s.StartReq) -> dict[str, Any]:
        fields = generate_fields(action) | self._of_a_pair()
        if not hasattr(self._view.model, "read_back"):
            fields["sampling"]["temperature"] = 0  # only the likeliest tokens of a real model can be compared
        if action.session is not None:
            fields["session_params"] = self._session_params(action.session)
        return fields

    def _of_a_pair(self) -> dict[str, Any]:
        half = self._view.missing.or_default(lambda: self._view.half, None)
        if half is None:
            return {}
        self._rooms += 1
        return messages.disaggregation_fields(half, self._rooms)

    def _session_params(self, params: s.SessionParams) -> dict[str, Any]:
        values = {name: value for name, value in structs.asdict(params).items() if value not in (None, False)}
        return values | {name: self._rid(values[name]) for name in ("id", "rid") if name in values}

    @_sends(s.OpenSession)
    def _open_session(self, action: s.OpenSession) -> None:
        fields = {"streaming": action.streaming, "timeout": action.timeout}
        self._context.control("open_session", session_id=self._rid(action.name), **fields)

    @_sends(s.CloseSession)
    def _close_session(self, action: s.CloseSession) -> None:
        self._context.control("close_session", session_id=self._rid(action.name))

    @_sends(s.Pause)
    def _pause(self, action: s.Pause) -> None:
        self._paused = True
        if action.mode == "abort":
            self._context.pause_abort()
        else:
            self._context.pause_generation(mode=action.mode)

    @_sends(s.Continue)
    def _continue(self, action: s.Continue) -> None:
        self._paused = False
        self._context.continue_generation()

    @_sends(s.Abort)
    def _abort(self, action: s.Abort) -> None:
        self._context.abort_rid(self._rid(action.name), await_arrival=action.await_arrival)

    @_sends(s.AbortAll)
    def _abort_all(self, action: s.AbortAll) -> None:
        if action.await_arrival:
            self._context.abort_all()
        else:
            self._context.abort_all_later()

    @_sends(s.FlushCache)
    def _flush_cache(self, action: s.FlushCache) -> None:
        self._context.flush_cache()

    @_sends(s.EvictRadix)
    def _evict_radix(self, action: s.EvictRadix) -> None:
        self._context.evict_tree(action.num_tokens)

    @_sends(s.ExhaustKv)
    def _exhaust_kv(self, action: s.ExhaustKv) -> None:
        # A script may ask to leave more pages than the pool has: then there is nothing to take.
        if action.leave_pages <= self._view.num_pages:
            self._context.exhaust_kv(leave_pages=action.leave_pages)

    @_sends(s.ExhaustLockRefs)
    def _exhaust_lock_refs(self, action: s.ExhaustLockRefs) -> None:
        self._context.exhaust_lock_refs(leave_refs=action.leave_refs)

    @_sends(s.ExhaustRows)
    def _exhaust_rows(self, action: s.ExhaustRows) -> None:
        if self._script.config.is_embedding:
            return  # an embedding is over before it could hold a row for long, and no other request is served
        count = len(self._view.scheduler.req_to_token_pool.free_slots) - action.leave_rows
        # Admission reserves the whole length of a request that ignores EOS: together these requests may take half of
        # the pool, otherwise the first of them would keep the others from getting rows.
        length = max(8, self._view.num_pages * self._view.page_size // (2 * max(1, count)))
        for _ in range(max(0, count)):
            rid = self._rid(f"{_BALLAST_PREFIX}{self._ballast_sent}")
            self._ballast_sent += 1
            # The scheduler clips what is longer than the context; the tokenizer manager refuses it.
            sampling = {"max_new_tokens": min(length, CONTEXT_LENGTH - 1), "ignore_eos": True}
            try:
                self._context.start_tokens(rid=rid, input_ids=[3], sampling=sampling, **self._of_a_pair())
                self._ballast.append(rid)
            except RequestRefused as refused:
                self.notes[f"a request that takes a row was refused by the HTTP server: {refused.text[:200]}"] = None

    @_sends(s.Release)
    def _release(self, action: s.Release) -> None:
        self._context._release_exhausted_pools()
        ballast, self._ballast = self._ballast, []
        for rid in ballast:
            if not self._view.answered(rid):
                self._context.abort_rid(rid)

    @_sends(s.AdvanceClock)
    def _advance_clock(self, action: s.AdvanceClock) -> None:
        self._context.advance_clock(action.seconds)

    # -- stepping until a stage --------------------------------------------------------------------------------

    def _step_until(self, action: s.StepUntil) -> Generator[None, None, None]:
        rid = self._rid(action.name)
        over = self._view.answered(rid)
        for _ in range(action.max_steps):
            if self._reached(action, rid):
                break
            yield
        # A stage that counts as passed only because the request has ended was not reached.
        over = over or (action.stage != "finished" and self._view.answered(rid))
        self._monitor.reach.note_stage(action.stage, reached=not over and self._reached(action, rid))

    def _reached(self, action: s.StepUntil, rid: str) -> bool:
        req = next((req for req in self._view.requests if req.rid == rid), None)
        start = self._starts.get(action.name)
        if start is None:
            return False  # a name that the script never starts
        told = self._view.missing.or_default
        now = Progress(
            chunks=self._context.chunks_done(rid),
            tokens=told(lambda: len(req.output_ids), 0) if req is not None else 0,
            waiting=told(lambda: self._context.status(rid) == "waiting", False),
            retracted=req is not None and told(lambda: req.retraction_count > 0, False),
            ended=self._view.answered(rid),
        )
        wanted = condition(
            action,
            start,
            self._script.config,
            prompt_len=told(lambda: len(req.origin_input_ids), None) if req is not None else None,
            max_new_tokens=told(lambda: req.max_new_tokens, None) if req is not None else None,
        )
        return reached(wanted, now)

