"""Step helpers for script functions: generators that yield scheduler steps until something holds.

Names, signatures and defaults are those of the helpers that ship with SGLang's scripted-runtime tests. Each helper
raises ``AssertionError`` when the bound is reached, with the awaited condition and the observed state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

from sr_fuzz.oracle.function import MAX_LEN
from sr_fuzz.oracle.settings import MODEL_PATH

DEFAULT_CHUNK_SIZE = 256
DEFAULT_MAX_STEPS = 400

SMALL_MODEL = "Qwen/Qwen3-0.6B"
"""The model that SGLang's own tests run on a GPU; see `base_engine_kwargs` for its replacement without a GPU."""

# Ballast must outlive any test; `exhaust_row_pool` asks for fewer tokens where context or pool are smaller.
BALLAST_MAX_NEW_TOKENS = 30000

# A pool of 4096 tokens is full with two of these: 2 * (1536 + 512) tokens.
SMALL_KV_POOL_MAX_TOTAL_TOKENS = 4096
SMALL_KV_POOL_BALLAST_MAX_NEW_TOKENS = 512
SMALL_KV_POOL_BALLAST_PROMPT_LEN = 1536

LIFECYCLE_STAGES = ("first_chunk", "last_chunk", "first_decode", "mid_decode", "last_decode")

# SGLang's tests rely on properties of a real model: no EOS within the first output tokens, and a long context. The
# oracle never generates token 0, and it has no weight for a position beyond MAX_LEN.
_LIKE_A_REAL_MODEL = {"eos_token_id": 0, "max_position_embeddings": MAX_LEN}


def base_engine_kwargs(
    *, model_path: str = SMALL_MODEL, chunked_prefill_size: int = DEFAULT_CHUNK_SIZE, **overrides: Any
) -> dict[str, Any]:
    """Return the arguments for ``ScriptedHttpServer.start``; ``overrides`` are further fields of ``ServerArgs``.

    Without a CUDA GPU the oracle model replaces `SMALL_MODEL`, whether it is named or the default; any other model is
    kept. The oracle then never ends a request by itself, which it would do with probability 1/64 per token.
    """
    kwargs: dict[str, Any] = {"model_path": model_path, "chunked_prefill_size": chunked_prefill_size}
    if model_path == SMALL_MODEL and not _cuda_available():
        # A pipeline stage needs at least one layer to boot.
        layers = {"num_hidden_layers": overrides.get("pp_size", 1)}
        kwargs |= {"model_path": str(MODEL_PATH), "json_model_override_args": json.dumps(_LIKE_A_REAL_MODEL | layers)}
    return kwargs | overrides


def run_until(handle: Any, predicate: Callable[[Any], bool], *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Step until ``predicate(handle)`` is true."""
    for _ in range(max_steps):
        if predicate(handle):
            return
        yield
    raise AssertionError(
        f"run_until: the predicate did not hold within {max_steps} steps "
        f"(request {handle.rid}, status {handle.status})"
    )


def run_until_finished(handle: Any, *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    yield from run_until(handle, lambda h: h.finished, max_steps=max_steps)


def run_until_all_finished(handles: Sequence[Any], *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Step until all requests have finished; a handle that was finished once counts as finished from then on."""
    open_handles = list(handles)
    for _ in range(max_steps):
        open_handles = [h for h in open_handles if not h.finished]
        if not open_handles:
            return
        yield
    raise AssertionError(
        f"run_until_all_finished: {len(open_handles)} of {len(handles)} requests unfinished after {max_steps} steps: "
        f"{[h.rid for h in open_handles]}"
    )


def drain_until_released(t: Any, *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Step until the engine is fully idle and all request rows are free again."""
    for _ in range(max_steps):
        stats = t.engine_stats()
        if t.is_fully_idle and stats["req_pool_free"] == stats["req_pool_total"]:
            return
        yield
    raise AssertionError(f"drain_until_released: not released after {max_steps} steps: {t.engine_stats()}")


def warmup_radix(t: Any, prompt_tokens: Sequence[int], *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Run one request with a uniform prompt to its end, so that the prefix cache contains it."""
    if not prompt_tokens or len(set(prompt_tokens)) != 1:
        raise AssertionError(f"warmup_radix needs a non-empty prompt of equal tokens, got {list(prompt_tokens)[:8]}")
    handle = t.start_req(prompt_len=len(prompt_tokens), max_new_tokens=1, prompt_token=prompt_tokens[0])
    yield from run_until_finished(handle, max_steps=max_steps)


def exhaust_row_pool(t: Any, *, leave_rows: int, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Fill request rows with ballast requests until ``leave_rows`` are free; an abort of all requests frees them."""
    pool = t.scheduler.req_to_token_pool
    # The scheduler would clip a length that does not fit; the HTTP server refuses it.
    new_tokens = min(BALLAST_MAX_NEW_TOKENS, t.scheduler.max_req_len - 2)
    for _ in range(max(0, pool.available_size() - leave_rows)):
        t.start_req(prompt_len=1, max_new_tokens=new_tokens, ignore_eos=True)
    for _ in range(max_steps):
        if pool.available_size() <= leave_rows:
            return
        yield
    raise AssertionError(
        f"exhaust_row_pool: {pool.available_size()} rows free after {max_steps} steps, wanted {leave_rows}; "
        "the KV pool may be too small for that many ballast requests"
    )


def advance_to_nth_chunk(r: Any, target_chunk: int, *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Step until ``target_chunk`` chunks of the prompt have been launched."""
    for _ in range(max_steps):
        _require_unfinished(r, f"chunk {target_chunk}")
        if r.chunks_done >= target_chunk:
            return
        yield
    raise AssertionError(f"chunk {target_chunk} not reached within {max_steps} steps (chunks_done={r.chunks_done})")


def advance_to_decode_step(r: Any, target_output_len: int, *, max_steps: int = DEFAULT_MAX_STEPS) -> Generator:
    """Step until the request has ``target_output_len`` output tokens."""
    for _ in range(max_steps):
        _require_unfinished(r, f"output length {target_output_len}")
        req = r.req
        if req is not None and len(req.output_ids) >= target_output_len:
            return
        yield
    raise AssertionError(f"output length {target_output_len} not reached within {max_steps} steps")


def advance_to_lifecycle_stage(
    r: Any, stage: str, *, num_middle_chunks: int, max_new_tokens: int, max_steps: int = DEFAULT_MAX_STEPS
) -> Generator:
    """Step until one of `LIFECYCLE_STAGES`; ``num_middle_chunks`` does not count the last, unchunked extend."""
    if stage == "first_chunk":
        yield from advance_to_nth_chunk(r, 1, max_steps=max_steps)
    elif stage == "last_chunk":
        yield from advance_to_nth_chunk(r, num_middle_chunks, max_steps=max_steps)
    elif stage in ("first_decode", "mid_decode", "last_decode"):
        length = {"first_decode": 1, "mid_decode": max(1, max_new_tokens // 2), "last_decode": max_new_tokens - 1}
        yield from advance_to_decode_step(r, length[stage], max_steps=max_steps)
    else:
        raise AssertionError(f"unknown lifecycle stage {stage!r}; the stages are {', '.join(LIFECYCLE_STAGES)}")


def _require_unfinished(r: Any, what: str) -> None:
    if r.finished:
        raise AssertionError(f"request {r.rid} finished before it reached {what}")


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
