"""Read-only queries on requests and batches, with the same meaning as in SGLang's scripted runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sr_fuzz.runtime.protocols import QueriedContext
from sr_fuzz.sglang_api import request_state, scheduler_state
from sr_fuzz.sglang_api.node_handles import iter_node_handles, node_lock_ref, resolve_node


def _queued_reqs(ctx: QueriedContext) -> Iterator[Any]:
    scheduler = ctx.scheduler
    if scheduler.chunked_req is not None:
        yield scheduler.chunked_req
    yield from scheduler.waiting_queue
    for _, batch in scheduler_state.batches(scheduler):
        yield from batch.reqs


def list_active_reqs(ctx: QueriedContext) -> list[Any]:
    """Return every request in the chunked slot, the waiting queue, the running or the last batch, each once."""
    return list({id(req): req for req in _queued_reqs(ctx)}.values())


def find_req_by_rid(ctx: QueriedContext, rid: str) -> Any | None:
    req = next((r for r in _queued_reqs(ctx) if r.rid == rid), None)
    if req is not None:
        ctx._seen_rids.add(rid)
    return req


def is_finished(ctx: QueriedContext, rid: str) -> bool:
    """Whether the request has finished, or was seen in a queue or a batch and is gone; False if it never arrived."""
    req = find_req_by_rid(ctx, rid)
    if req is not None:
        return req.finished()
    if rid not in ctx._seen_rids and any(rid in record.rids for record in ctx._scheduler_hook._batch_log):
        ctx._seen_rids.add(rid)
    return rid in ctx._seen_rids


def status(ctx: QueriedContext, rid: str) -> str:
    """Return ``waiting``, ``running``, ``finished`` or ``unknown``."""
    if any(req.rid == rid for req in ctx.scheduler.waiting_queue):
        return "waiting"
    req = find_req_by_rid(ctx, rid)
    if req is not None:
        return "finished" if req.finished() else "running"
    return "finished" if rid in ctx._seen_rids else "unknown"


def is_chunking(ctx: QueriedContext, rid: str) -> bool:
    chunked = ctx.scheduler.chunked_req
    return chunked is not None and chunked.rid == rid


def remaining_prompt_tokens(ctx: QueriedContext, rid: str) -> int:
    """Return the number of prompt tokens whose KV is not committed yet; 0 when the request is in no queue."""
    req = find_req_by_rid(ctx, rid)
    if req is None:
        return 0
    return max(0, len(req.origin_input_ids) - request_state.committed_len(req))


def chunks_done(ctx: QueriedContext, rid: str) -> int:
    """Return the number of launched chunks of the prompt; the last, unchunked extend of a chunked prompt counts."""
    log = ctx._scheduler_hook._batch_log
    middle = sum(1 for record in log if record.chunked_rid == rid and rid in record.rids)
    if middle == 0:
        return 0
    last = any(rid in record.extend_rids and record.chunked_rid != rid for record in log)
    return middle + int(last)


def chunked_parks(ctx: QueriedContext, rid: str) -> int:
    """Return the number of batches that ran without the request while it was in the chunked slot."""
    log = ctx._scheduler_hook._batch_log
    return sum(1 for record in log if record.chunked_rid == rid and rid not in record.rids)


def batch_composition(ctx: QueriedContext) -> dict[str, list[str]]:
    """Return request ids by role: ``prefill`` and ``decode`` of the last batch, ``chunked``, ``running``."""
    scheduler = ctx.scheduler
    chunked = [scheduler.chunked_req.rid] if scheduler.chunked_req is not None else []
    running = [req.rid for req in scheduler.running_batch.reqs] if scheduler.running_batch is not None else []
    roles: dict[str, list[str]] = {"prefill": [], "decode": [], "chunked": chunked, "running": running}
    last = scheduler.last_batch
    if last is not None and not last.is_empty() and last.forward_mode is not None:
        role = "prefill" if last.forward_mode.is_extend() else "decode"
        roles[role] = [req.rid for req in last.reqs if req.rid not in chunked]
    return roles


def is_idle(ctx: QueriedContext) -> bool:
    """Whether no request is chunked, waiting or running; the result of the last batch may still be in flight."""
    scheduler = ctx.scheduler
    running = scheduler.running_batch
    return scheduler.chunked_req is None and not scheduler.waiting_queue and (running is None or running.is_empty())


def is_fully_idle(ctx: QueriedContext) -> bool:
    """Whether the engine is idle and the last batch is processed."""
    last = ctx.scheduler.last_batch
    return is_idle(ctx) and (last is None or last.is_empty())


def last_batch_forward_mode(ctx: QueriedContext) -> str | None:
    """Return the name of the last batch's forward mode in SGLang's spelling (``EXTEND``, ``DECODE`` …)."""
    last = ctx.scheduler.last_batch
    return last.forward_mode.name if last is not None and last.forward_mode is not None else None


def engine_stats(ctx: QueriedContext) -> dict[str, int]:
    """Return the free KV in tokens, free and total request rows, and the page size in tokens."""
    scheduler = ctx.scheduler
    return {
        "kv_pool_free": scheduler.token_to_kv_pool_allocator.available_size(),
        "req_pool_free": scheduler.req_to_token_pool.available_size(),
        "req_pool_total": scheduler.req_to_token_pool.size,
        "page_size": scheduler.page_size,
    }


def get_all_node_hit_counts(ctx: QueriedContext) -> dict[int, int]:
    """Return the hit count by node id, without the root."""
    tree = ctx.scheduler.tree_cache
    nodes = (resolve_node(tree, handle) for handle in iter_node_handles(tree))
    return {node.id: node.hit_count for node in nodes}


def get_all_node_lock_refs(ctx: QueriedContext) -> dict[int, int]:
    """Return the lock count by node id, without the root."""
    tree = ctx.scheduler.tree_cache
    nodes = (resolve_node(tree, handle) for handle in iter_node_handles(tree))
    return {node.id: node_lock_ref(node) for node in nodes}
