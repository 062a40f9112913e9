"""What the scheduler sent reaches the HTTP client: every request, every token, the same end."""

from __future__ import annotations

from typing import Any

from sr_fuzz.invariants.base import Invariant, Problem, names
from sr_fuzz.invariants.liveness import STUCK_STEPS

from sr_fuzz.runtime.recorder import Stream
from sr_fuzz.view.view import SchedulerView, name_of


class HttpAnswers(Invariant):
    """An HTTP client gets all that the scheduler sent for its request, including the end.

    Formula, once the engine is drained and the server had seconds to answer: the client of each request that the
    scheduler has answered has its answer too; the last event of a stream, or the body, holds the tokens that the
    scheduler sent, joined, and the type of its finish reason. At any time, a call gets through to the scheduler within
    60 steps in which it runs no forward: ``control_stuck`` for a pause or continue that waits for requests which the
    scheduler does not answer, ``not_passed_on`` for any other call, or where all are answered.

    Source: ``TokenizerManager._handle_batch_output`` and ``_handle_abort_req`` (what a client gets is cumulative),
    ``generate_request`` in ``entrypoints/http_server.py``; ``TokenizerManager.pause_generation``, which holds the lock
    that a continue takes, until all requests are answered.
    Covers: the server engine, streaming or not. The local engine has no clients.

    Known false alarms: an abort that carries an error status reaches the client as an error instead; an ``AbortReq``
    carries no tokens, so the tokenizer manager answers with the tokens that it has.
    """

    name = "http_answers"
    family = "output"

    def no_subject(self, view: SchedulerView) -> str | None:
        return "no HTTP clients on this engine" if view.clients is None else None

    def __init__(self) -> None:
        self._stuck_steps = 0
        self._forwards = 0

    def check(self, view: SchedulerView) -> Problem | None:
        moved = view.forward_steps != self._forwards
        self._forwards = view.forward_steps
        self._stuck_steps = self._stuck_steps + 1 if view.context.put_off and not moved else 0
        if self._stuck_steps < STUCK_STEPS:
            return None
        held_up = (
            f"the server has not passed on `{view.context.put_off[0]}` for {self._stuck_steps} steps without a forward"
        )
        waiting = [name_of(rid) for rid in view.unanswered()]
        if not waiting:
            return Problem("not_passed_on", f"{held_up}, although the scheduler has answered all that reached it")
        if not view.context.put_off[0].startswith(("pause", "continue")):
            return Problem("not_passed_on", f"{held_up}, and it waits for no request")
        return Problem(
            "control_stuck",
            f"{held_up}: it waits for {names(waiting)} to be answered, and the scheduler, "
            f"{'paused' if view.paused else 'not paused'}, answers no request",
        )

    def check_end(self, view: SchedulerView) -> Problem | None:
        for rid, exchange in (view.clients or {}).items():
            stream = view.stream_of(rid)
            if stream is None or not stream.answered:
                continue  # an unanswered request is checked by `Liveness`
            if not exchange.done:
                return Problem("unanswered", f"the client of {name_of(rid)} waits, although the scheduler sent its end")
            problem = _compare(rid, stream, exchange)
            if problem is not None:
                return problem
        return None


def _compare(rid: str, stream: Stream, exchange: Any) -> Problem | None:
    end = stream.finishes[0]
    kind = (end.finish or {}).get("type")
    if exchange.problem is not None:
        if kind == "abort":
            return None
        return Problem("failed", f"{name_of(rid)} ended by {kind}, its client got an error: {exchange.problem}")
    answer = exchange.events[-1] if exchange.events else exchange.body
    if not isinstance(answer, dict) or "meta_info" not in answer:
        return Problem("no_end", f"{name_of(rid)} ended by {kind}, its client's answer has no end: {str(answer)[:200]}")
    got = (answer["meta_info"].get("finish_reason") or {}).get("type")
    if got != kind:
        return Problem("other_end", f"{name_of(rid)} ended by {kind}, its client was told {got}")
    tokens, sent = answer.get("output_ids"), stream.tokens
    if end.aborted or tokens is None or list(tokens) == sent:
        return None
    at = next((i for i, (a, b) in enumerate(zip(tokens, sent)) if a != b), min(len(tokens), len(sent)))
    return Problem(
        "other_tokens",
        f"{name_of(rid)}: the scheduler sent {len(sent)} tokens, its client got {len(tokens)}; they differ from token "
        f"{at}: {sent[at : at + 4]}… against {list(tokens)[at : at + 4]}…",
    )
