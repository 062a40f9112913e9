"""A stream carries what was computed: each token once, in order, and one end."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.runtime.recorder import Stream
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


class Streams(Invariant):
    """Each request's stream delivers its output exactly.

    Formula: at any time the deltas sent, joined, are a prefix of ``output_ids`` up to the stop; when the stream itself
    brings the finish they are all of it. A request ends once, counting a finish reason in the stream and an
    ``AbortReq``; nothing follows the end; ``completion_tokens`` counts what was sent. A request that asked for logprobs
    gets one with each token. A message that contradicts itself, such as one whose lists have other lengths than its
    request ids, is ``malformed_message``; the monitor reports it before it checks any invariant.

    Source: ``SchedulerOutputStreamer`` (``send_token_offset``), ``Req.output_ids_through_stop``,
    ``Scheduler.send_abort_output``.
    Covers: token streaming without a detokenizer, streaming or not, any stream interval.

    Known false alarms: an ``AbortReq`` may carry fewer tokens than ``output_ids`` has. With ``max_new_tokens=0`` one
    logprob is sent although no token is.
    """

    name = "streams"
    family = "output"

    def __init__(self) -> None:
        self._checked: dict[str, int] = {}

    def check(self, view: SchedulerView) -> Problem | None:
        # Requests are checked in the order of sending, so that of several the same one is named each time.
        touched = dict.fromkeys(rid for rid, _ in view.recorder.sent_in_step)
        if not touched:
            return None
        reqs = {req.rid: req for req in view.requests}
        for rid in touched:
            stream = view.recorder.streams[rid]
            if rid not in view.arrived:
                return Problem("unknown_request", f"the engine answered {name_of(rid)!r}, which was never sent")
            problem = (
                self._ends(rid, stream)
                or self._tokens(rid, stream, reqs.get(rid))
                or self._logprobs(rid, stream, reqs.get(rid))
            )
            if problem is not None:
                return problem
        return None

    @staticmethod
    def _logprobs(rid: str, stream: Stream, req: Request | None) -> Problem | None:
        if req is None or not req.return_logprob or req.max_new_tokens == 0:
            return None
        deltas = [delta for delta in stream.deltas if not delta.aborted]
        logprobs = sum(delta.output_logprobs or 0 for delta in deltas)
        tokens = sum(len(delta.tokens) for delta in deltas)
        if logprobs == tokens:
            return None
        return Problem("logprobs_missing", f"{name_of(rid)} got {logprobs} logprobs with {tokens} tokens")

    @staticmethod
    def _ends(rid: str, stream: Stream) -> Problem | None:
        ends = stream.finishes
        if len(ends) > 1:
            how = " and ".join(
                f"step {d.step}: {'AbortReq' if d.aborted else (d.finish or {}).get('type')}" for d in ends
            )
            return Problem("finished_twice", f"{name_of(rid)} was finished {len(ends)} times ({how})")
        after = stream.deltas[stream.deltas.index(ends[0]) + 1 :] if ends else []
        if not after:
            return None
        # There are two rules, because for a request that it has closed the tokenizer manager drops an empty message,
        # but loses tokens.
        rule = "sent_after_finish" if any(delta.tokens for delta in after) else "empty_after_finish"
        tokens = sum(len(delta.tokens) for delta in after)
        return Problem(
            rule,
            f"{name_of(rid)} got {len(after)} messages with {tokens} tokens after its finish at step {ends[0].step}",
        )

    def _tokens(self, rid: str, stream: Stream, req: Request | None) -> Problem | None:
        if req is None:
            # It was refused on arrival and never became a request that could have output.
            return None
        if any(delta.embedding is not None for delta in stream.deltas):
            # Its one output token is a placeholder; the answer is checked by `Embeddings`.
            return None
        sent = stream.tokens
        output = req.output_through_stop
        if sent != output[: len(sent)]:
            at = next((i for i, (a, b) in enumerate(zip(sent, output)) if a != b), min(len(sent), len(output)))
            return Problem(
                "stream_differs",
                f"{name_of(rid)}: token {at} of the stream differs from output_ids: sent {sent[at : at + 4]}…, "
                f"output_ids has {output[at : at + 4]}… ({len(sent)} sent, {len(output)} computed)",
            )
        last = stream.deltas[-1]
        if last.finish is not None and not last.aborted and len(sent) != len(output):
            return Problem(
                "tokens_missing", f"{name_of(rid)} finished with {len(sent)} tokens sent, output_ids has {len(output)}"
            )
        if last.completion_tokens is not None and last.completion_tokens != len(sent):
            return Problem(
                "wrong_count",
                f"{name_of(rid)}: completion_tokens says {last.completion_tokens}, {len(sent)} were sent",
            )
        return None
