"""Faults of speculative decoding: rejected drafts that are counted, and accepted drafts that are lost."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped
from sr_fuzz.sglang_api.request_state import kv_state


@fault(
    "kept_draft_room", stands_for="KV pages that were reserved for drafts leaked", expected=("kv_pages",),
    sets=("ngram",),
)  # fmt: skip
def kept_draft_room():
    """A retracted request frees its tokens, but not the page after them that was reserved for drafts."""
    from sglang.srt.managers import schedule_batch

    def release(original, req, tree_cache, *args, **kwargs):
        kv, page = kv_state(req), tree_cache.token_to_kv_pool_allocator.page_size
        end = -(-kv.committed // page) * page
        if end < kv.allocated:
            triggered()
            # The reserved room ends at a page boundary.
            req.kv.kv_allocated_len = kv.allocated - page
        return original(req, tree_cache, *args, **kwargs)

    return wrapped(schedule_batch, "release_kv_cache", release)


@fault(
    "accepted_too_many", stands_for="a draft accepted that the model does not confirm",
    expected=("oracle_output", "kv_content"), sets=("ngram",),
)  # fmt: skip
def accepted_too_many():
    """For a request that has been retracted, the draft after the last correct one is accepted too."""
    from sglang.srt.speculative import ngram_worker

    def sample(original, verify_input, batch, *args, **kwargs):
        predict, lens, index = original(verify_input, batch, *args, **kwargs)
        children = verify_input.retrieve_next_token.tolist()
        for at, req in enumerate(batch.reqs):
            length = int(lens[at])
            last = int(index[at, length - 1])
            child = children[at][last % len(children[at])]
            if req.retraction_count and child >= 0 and length < index.shape[1]:
                triggered()
                wrong = at * len(children[at]) + child
                index[at, length] = wrong
                predict[last] = verify_input.draft_token[wrong]
                lens[at] += 1
        return predict, lens, index

    return wrapped(ngram_worker, "eagle_sample", sample)


@fault(
    "unmoved_draft", stands_for="the KV of an accepted draft left where it was computed", expected=("kv_content",),
    sets=("ngram",),
)  # fmt: skip
def unmoved_draft():
    """While two or more requests decode, accepted drafts stay in their slots although rejected drafts precede them."""
    from sglang.srt.speculative import ngram_worker

    def move(original, batch, accept_index, *args, **kwargs):
        nodes = len(batch.out_cache_loc) // len(batch.reqs)
        paths = [[row % nodes for row in rows if row >= 0] for rows in accept_index.tolist()]
        if len(paths) > 1 and any(path != list(range(len(path))) for path in paths):
            triggered()
            return None
        return original(batch, accept_index, *args, **kwargs)

    return wrapped(ngram_worker, "move_accept_tokens_to_target_kvcache", move)
