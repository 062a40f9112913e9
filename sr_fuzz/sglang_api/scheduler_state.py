"""Reads a scheduler: its batches and queues, and for how long its event loop may hide a result."""

from __future__ import annotations

from typing import Any


def batches(scheduler: Any) -> list[tuple[str, Any]]:
    """Return the batches whose requests can continue, by place; with pipeline stages, one for each slot."""
    if scheduler.server_args.pp_size == 1:
        named = [("running", scheduler.running_batch), ("last_batch", scheduler.last_batch)]
    else:
        # The event loop swaps the entries of these lists in and out of ``running_batch`` and ``last_batch``.
        slots = (("microbatch", "mbs"), ("last_batch", "last_mbs"), ("running", "running_mbs"))
        named = [(place, batch) for place, name in slots for batch in getattr(scheduler, name, ())]
        named += [("running", scheduler.running_batch)]
    return [(place, batch) for place, batch in named if batch is not None]


def disaggregation_queues(scheduler: Any) -> list[tuple[str, list[Any]]]:
    """Return the queues of one half of a disaggregated pair, with their requests; none without disaggregation."""
    found = []
    for place, owner, names in (
        ("bootstrap", "disagg_prefill_bootstrap_queue", ("queue",)),
        ("prealloc", "disagg_decode_prealloc_queue", ("queue", "retracted_queue", "held_rebootstrap_reqs")),
        ("transfer", "disagg_decode_transfer_queue", ("queue",)),
    ):
        queue = getattr(scheduler, owner, None)
        for name in names:
            # The entries of a decode queue are records of a request and its receiver.
            reqs = [getattr(entry, "req", entry) for entry in getattr(queue, name, ())]
            found.append((place if name == "queue" else name, reqs))
    found.append(("inflight", list(getattr(scheduler, "disagg_prefill_inflight_queue", None) or ())))
    return [(place, reqs) for place, reqs in found if reqs]


def places(scheduler: Any) -> list[tuple[str, list[Any]]]:
    """Return the queues and batches from which a request can continue, including those of a disaggregated half."""
    found = [("waiting", list(scheduler.waiting_queue))]
    found += [(place, list(batch.reqs)) for place, batch in batches(scheduler)]
    if scheduler.chunked_req is not None:
        found.append(("chunked", [scheduler.chunked_req]))
    for batch, _ in getattr(scheduler, "result_queue", ()):
        found.append(("result_queue", list(batch.reqs)))
    grammar = getattr(scheduler, "grammar_manager", None)
    if grammar is not None:
        found.append(("grammar", list(grammar.grammar_queue)))
    return found + disaggregation_queues(scheduler)


def is_paused(scheduler: Any) -> bool:
    return bool(scheduler._engine_paused)


def pipeline_steps(scheduler: Any) -> int:
    """Return for how many steps an engine must look idle to be idle: a result may be between two pipeline stages."""
    args = scheduler.server_args
    return 1 if args.pp_size == 1 else 2 * (args.pp_size + getattr(args, "pp_async_batch_depth", 0))


def busy_check_knows_prompts() -> bool:
    """Whether SGLang's busy memory check counts what never leaves a window (``swa_evict_floor``): from 0.5.22 on."""
    from sglang.srt.managers.scheduler_components import pool_stats_observer

    return hasattr(pool_stats_observer, "kv_private_swa_tokens")


def flush_deferred(scheduler: Any) -> bool:
    """Whether a flush with a time-out is deferred until the engine is idle; older releases have no such flush."""
    return getattr(getattr(scheduler, "flush_wrapper", None), "_pending", None) is not None
