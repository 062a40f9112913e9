"""An embedding request gets the embedding of its own prompt."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.oracle.function import next_token
from sr_fuzz.view.view import SchedulerView, name_of

# The pooler normalises in float32.
_TOLERANCE = 1e-4


class Embeddings(Invariant):
    """The answer to an embedding request is the vector of its own prompt, sent once.

    Formula: a request that ends naturally gets exactly one vector; it is 1 at `sr_fuzz.oracle.function.next_token` of
    the prompt that was sent, and 0 elsewhere.

    Source: the embedding branch of ``process_batch_result_prefill`` in
    ``managers/scheduler_components/batch_result_processor.py`` (a chunk's vector is kept until that of the next chunk
    replaces it), ``Pooler`` in ``layers/pooler.py``: the vector is the last token's hidden state, normalised; that of
    the oracle model is one-hot.
    Covers: engines that serve embeddings and run the oracle model.

    Known false alarms: a request that is refused or aborted gets whatever vector there is.
    """

    name = "embeddings"
    family = "output"

    def no_subject(self, view: SchedulerView) -> str | None:
        return None if view.facts.is_embedding else "no embeddings are served"

    def not_covered(self, view: SchedulerView) -> str | None:
        return None if hasattr(view.model, "read_back") else "the model is not the oracle"

    def check(self, view: SchedulerView) -> Problem | None:
        for rid, delta in view.recorder.sent_in_step:
            if delta.aborted or (delta.finish or {}).get("type") == "abort" or rid not in view.prompts:
                continue
            vector = delta.embedding
            if vector is None:
                return Problem("no_vector", f"{name_of(rid)} ended by {delta.finish} without a vector")
            expected = next_token(view.prompts[rid], adapter=view.adapter_of(rid))
            large = [index for index, value in enumerate(vector) if abs(value) > _TOLERANCE]
            if large != [expected] or abs(vector[expected] - 1.0) > _TOLERANCE:
                shown = ", ".join(f"{vector[index]:.3g} at {index}" for index in large[:4]) or "nothing but zeros"
                return Problem(
                    "wrong_vector",
                    f"{name_of(rid)}: the vector has {shown}; its prompt of {len(view.prompts[rid])} tokens asks for "
                    f"1 at {expected}",
                )
        return None
