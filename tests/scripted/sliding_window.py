"""A sliding-window model on the oracle, and a script function in which a chunked request is parked for lack of window.

A model with full and sliding-window layers has a second, smaller pool. When it runs out while a request is between its
chunks, the request keeps the chunked slot and sits out batches (the early return of ``PrefillAdder.add_chunked_req``).
Meanwhile it must not be inserted into the tree a second time: a past bug of this kind left nodes locked forever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sr_fuzz.oracle.settings import MODEL_PATH
from sr_fuzz.testing.scripted_runtime import (
    advance_to_decode_step,
    advance_to_nth_chunk,
    base_engine_kwargs,
    drain_until_released,
    run_until_all_finished,
)
from tests.scripted.common import back_to, chunk_size, output, reference

# Layer 0 sees all tokens, layer 1 a window; the oracle reads back from both.
MODEL = {
    "architectures": ["SrFuzzOracleSwaForCausalLM"],
    "num_hidden_layers": 2,
    "is_hybrid_swa": True,
    "hybrid_layer_pattern": [0, 1],
    "sliding_window_size": 128,
}

POOL = 4096
CHUNK = 64
ENGINE_KWARGS = base_engine_kwargs(
    model_path=str(MODEL_PATH),
    json_model_override_args=json.dumps(MODEL),
    # 409 tokens for windows: this pool runs out first.
    swa_full_tokens_ratio=0.1,
    max_total_tokens=POOL,
    chunked_prefill_size=CHUNK,
    max_running_requests=6,
)


@contextmanager
def local_engine() -> Iterator[None]:
    """For `LocalEngine.with_faults`, which enters it before a scheduler boots: boots the scheduler with this model."""
    from sr_fuzz.engine import settings

    original = settings.oracle_settings
    settings.oracle_settings = lambda *kind: original(*kind) | {
        name: ENGINE_KWARGS[name] for name in ("json_model_override_args", "swa_full_tokens_ratio")
    }
    try:
        yield
    finally:
        settings.oracle_settings = original


def parked_chunked_request(t):
    """With one window token left the chunked request sits out while the other decodes; later both end correctly."""
    chunk, stats = chunk_size(t), t.engine_stats()
    length = 4 * chunk - 3
    decoding = t.start_req(prompt_len=5, max_new_tokens=12, ignore_eos=True, prompt_token=9)
    yield from advance_to_decode_step(decoding, 2)
    r = t.start_req(prompt_len=length, max_new_tokens=4, ignore_eos=True)
    yield from advance_to_nth_chunk(r, 2)
    reqs = [decoding.req, r.req]
    before = (r.chunks_done, r.remaining_prompt_tokens, r.kv_pages)
    assert r.is_chunking and t.chunked_parks(r.rid) == 0
    t.exhaust_kv(leave_pages=1)
    yield
    assert t.chunked_parks(r.rid) == 1 and t.last_batch_forward_mode == "DECODE"
    assert r.is_chunking and (r.chunks_done, r.remaining_prompt_tokens, r.kv_pages) == before
    t._release_exhausted_pools()
    yield from run_until_all_finished([decoding, r])
    assert output(reqs[0]) == reference(5, 12, token=9) and output(reqs[1]) == reference(length, 4)
    yield from drain_until_released(t)
    assert set(t.get_all_node_lock_refs().values()) == {0}
    yield from back_to(t, stats)
