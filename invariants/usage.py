"""The numbers in an answer agree with what was asked for and what was sent."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, disaggregated

from sr_fuzz.runtime.recorder import Stream
from sr_fuzz.sglang_api.outputs import Delta
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


class Usage(Invariant):
    """Token counts and logprobs of an answer are consistent.

    Formula. Each message about a request says ``prompt_tokens`` = length of the prompt that was sent; ``cached_tokens``
    is a whole number of pages, less than the prompt, and equals what the request's first prefill skipped. A request
    that asked for logprobs gets, over all messages, those of the tokens ``prompt[logprob_start_len:]`` once (with -1:
    of none) and those of the tokens that were sent; with ``top_logprobs_num`` > 0 each message has as many lists of top
    logprobs as logprobs, input and output alike, of ``top_logprobs_num`` entries. A request that did not ask for
    logprobs gets none.

    Source: ``_GenerationStreamAccumulator.accept`` in ``scheduler_components/output_streamer.py``,
    ``SchedulerLogprobResultProcessor``, ``ScheduleBatch.prepare_for_extend`` (``cached_tokens``). That
    ``completion_tokens`` counts what was sent, with one logprob per token, is checked by `Streams`.
    Covers: plain generate requests, no sessions, no beams.

    Known false alarms: a request that is refused on arrival runs one dummy token as its prompt. ``cached_tokens`` stays
    that of the first admission: what a retracted request finds in the tree later is its own. The first of the input's
    top logprobs is None, because nothing comes before it. An abort may come before the prefill is complete. With
    ``max_new_tokens=0`` nothing is sampled, and a list of top logprobs comes without a token
    (``add_logprob_return_values``). Input tokens that could stand for an image are sent as 0.
    """

    name = "usage"
    family = "output"

    def __init__(self) -> None:
        self._first_prefix: dict[Request, int] = {}

    def not_covered(self, view: SchedulerView) -> str | None:
        return disaggregated(view)

    def check(self, view: SchedulerView) -> Problem | None:
        for batch in view.launched:
            for row in batch.rows:
                if not row.decode:
                    self._first_prefix.setdefault(row.req, row.start)
        if not view.recorder.sent_in_step:
            return None
        reqs = {req.rid: req for req in view.requests}
        for rid, delta in view.recorder.sent_in_step:
            req, prompt = reqs.get(rid), view.prompts.get(rid)
            if req is None or prompt is None or delta.aborted or rid in view.sessions.turns:
                continue
            if list(req.origin_input_ids) == [0] != prompt:
                continue
            stream = view.recorder.streams[rid]
            problem = self._counts(view, req, len(prompt), delta) or self._logprobs(view, req, prompt, stream)
            if problem is not None:
                return problem
        return None

    def _counts(self, view: SchedulerView, req: Request, prompt: int, delta: Delta) -> Problem | None:
        who, cached = name_of(req.rid), delta.cached_tokens
        if delta.prompt_tokens not in (None, prompt):
            said = delta.prompt_tokens
            return Problem("wrong_prompt_tokens", f"{who}: prompt_tokens says {said}, {prompt} were sent")
        if cached is None:
            return None
        if cached % view.page_size or not 0 <= cached < prompt:
            return Problem(
                "wrong_cached_tokens",
                f"{who}: cached_tokens says {cached}; the prompt has {prompt} tokens, a page {view.page_size}",
            )
        skipped = self._first_prefix.get(req, 0)
        if cached != skipped:
            return Problem(
                "wrong_cached_tokens", f"{who}: cached_tokens says {cached}, its first prefill skipped {skipped}"
            )
        return None

    def _logprobs(self, view: SchedulerView, req: Request, prompt: list[int], stream: Stream) -> Problem | None:
        who = name_of(req.rid)
        deltas = [delta for delta in stream.deltas if not delta.aborted and delta.logprobs is not None]
        if not req.return_logprob:
            if any(delta.logprobs.any for delta in deltas):
                return Problem("unasked_logprobs", f"{who} got logprobs that it had not asked for")
            return None
        problem = self._tokens_of_logprobs(view, req, prompt, stream, deltas)
        if problem is not None:
            return problem
        top = req.top_logprobs_num
        for counts in (delta.logprobs for delta in deltas):
            found = counts.top_inputs, counts.top_outputs
            expected = (len(counts.inputs), len(counts.outputs)) if top else (0, 0)
            if not req.max_new_tokens:
                found, expected = found[:1], expected[:1]
            if found != expected or counts.widths - {top}:
                return Problem(
                    "wrong_top_logprobs",
                    f"{who} got {counts.top_inputs} input and {counts.top_outputs} output lists of top logprobs, of "
                    f"{sorted(counts.widths)} entries, with {len(counts.inputs)} and {len(counts.outputs)} logprobs; "
                    f"it had asked for {top} entries",
                )
        return None

    @staticmethod
    def _tokens_of_logprobs(
        view: SchedulerView, req: Request, prompt: list[int], stream: Stream, deltas: list[Delta]
    ) -> Problem | None:
        who, start = name_of(req.rid), req.logprob_start_len
        # SGLang replaces tokens that may stand for an image, among them the largest token.
        most = view.facts.vocab_size - 1
        asked = [token if token < most else 0 for token in prompt[start:]] if start >= 0 else []
        inputs = [token for delta in deltas for token in delta.logprobs.inputs]
        if inputs != asked and (inputs or stream.tokens):
            rule = "wrong_input_logprobs" if len(inputs) != len(asked) else "input_logprobs_of_other_tokens"
            return Problem(
                rule, f"{who} got {len(inputs)} input logprobs of {inputs[:6]}…, expected {len(asked)} of {asked[:6]}…"
            )
        outputs = [token for delta in deltas for token in delta.logprobs.outputs]
        if outputs != stream.tokens and req.max_new_tokens:
            return Problem(
                "output_logprobs_of_other_tokens",
                f"{who} got output logprobs of {outputs[-6:]} at the end, its tokens are {stream.tokens[-6:]}",
            )
        return None
