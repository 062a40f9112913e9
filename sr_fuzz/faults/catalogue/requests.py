"""Faults of other kinds of requests: embeddings, and several samples for one prompt."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.sglang_api.request_state import kv_state


@fault(
    "swapped_vectors",
    stands_for="one request's embedding sent to another",
    expected=("embeddings",),
    sets=("requests",),
)
def swapped_vectors():
    """Two prompts that are embedded in one batch get each other's embeddings."""
    from sglang.srt.layers.pooler import Pooler

    def pool(original, pooler, *args, **kwargs):
        result = original(pooler, *args, **kwargs)
        if len(result.embeddings) == 2:
            triggered()
            result.embeddings = result.embeddings.flip(0)
        return result

    return wrapped(Pooler, "forward", pool)


@fault(
    "samples_on_one_page",
    stands_for="the KV of one answer to a prompt written over another's",
    expected=("kv_pages", "kv_content"),
)
def samples_on_one_page():
    """Of two requests with the same prompt in a batch, the second writes its last token into the first one's page."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def prepare(original, batch, *args, **kwargs):
        original(batch, *args, **kwargs)
        for one, other in zip(batch.reqs, batch.reqs[1:], strict=False):
            last = len(one.origin_input_ids) - 1
            held = kv_state(one), kv_state(other)
            if list(one.origin_input_ids) == list(other.origin_input_ids) and all(kv.allocated > last for kv in held):
                triggered()
                table = batch.req_to_token_pool.req_to_token
                table[held[1].row, last] = table[held[0].row, last]

    return wrapped(ScheduleBatch, "prepare_for_extend", prepare)
