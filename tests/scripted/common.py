"""Helpers of the script functions here. They ask the engine for its sizes, so that they run on any engine."""

from __future__ import annotations

from itertools import islice

from sr_fuzz.oracle.function import continuation
from sr_fuzz.testing.scripted_runtime import drain_until_released


def chunk_size(t):
    """Tokens of a prefill chunk."""
    return t.scheduler.chunked_prefill_size


def reference(prompt_len, count, token=1):
    """The first ``count`` output tokens after a prompt of ``prompt_len`` equal tokens, whatever the schedule."""
    return list(islice(continuation([token] * prompt_len), count))


def chunks_of(prompt_len, chunk):
    """The final value of `chunks_done`: 0 for a prompt that fits one chunk."""
    return 0 if prompt_len <= chunk else -(-prompt_len // chunk)


def finish_type(req):
    """``length``, ``stop`` or ``abort``."""
    return req.finished_reason.to_json()["type"]


def output(req):
    """The output tokens of a request so far."""
    return list(req.output_ids)


def extends_of(t, r):
    """Batches that have prefilled a part of the request so far."""
    return sum(1 for record in t._scheduler_hook._batch_log if r.rid in record.extend_rids)


def forwards(t):
    """Batches that have run so far."""
    return len(t._scheduler_hook._batch_log)


def steps(count):
    """Let the engine take ``count`` steps."""
    for _ in range(count):
        yield


def back_to(t, stats):
    """Drain, flush, and check that the pools are as full as ``stats`` (of `engine_stats`) say they were."""
    yield from drain_until_released(t)
    t.flush_cache()
    yield from steps(2)
    assert t.engine_stats() == stats, f"{t.engine_stats()} after the flush, {stats} before"
