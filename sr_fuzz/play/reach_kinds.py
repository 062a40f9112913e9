"""What a run can reach: the kinds that are counted, what each means, and where it can occur at all.

The name of a kind is ``group.what``. Counts of several runs are added, except those of the group ``max``, of which the
largest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from sr_fuzz.play import reach_drafts
from sr_fuzz.script import STAGES, Action, EngineConfig

PLACES = {
    "waiting": "in the waiting queue, for the first time",
    "retracted": "in the waiting queue, after a retraction or a preemption",
    "chunked": "in the chunked slot, its prompt under way or parked",
    "running": "in the running batch",
    "in_flight": "in the last batch or the result queue only: prefilled, not yet in the running batch",
}
"""Where an unfinished request can be."""

_NOWHERE = {
    "arriving": "sent in this step, or in a step of the tokenizer manager, and in no queue yet",
    "finished": "answered already",
    "unknown": "never sent",
}

_MODES = {"retract": "its memory given back", "in_place": "left as it is", "abort": "aborted"}

_FINISHES = {
    "length": "by its length",
    "eos": "at EOS",
    "stop": "at a stop token",
    "abort": "aborted by the script",
    "memory": "aborted by SGLang for lack of memory",
}

_REFUSALS = {
    "invalid": "at the door: too long, or a field that does not go with another",
    "queue_full": "because the queue was full, or for one of higher priority",
}


def _chunked(config: EngineConfig) -> bool:
    return 0 < config.chunked_prefill_size < config.max_total_tokens


def _cached(config: EngineConfig) -> bool:
    return not config.disable_radix_cache


def _preempting(config: EngineConfig) -> bool:
    return config.enable_priority_scheduling and not config.disable_priority_preemption


def _limited(config: EngineConfig) -> bool:
    return config.max_queued_requests is not None


def _always(config: EngineConfig) -> bool:
    return True


def _in_tree(config: EngineConfig) -> bool:
    """Whether the tree's nodes can be followed: the Rust tree does not show its nodes."""
    return _cached(config) and config.prefix_tree != "rust"


def _parked(config: EngineConfig) -> bool:
    """Whether a chunk may have to wait.

    With one pool a chunk always goes on, whichever request must make room; beside the pool of a sliding window it may
    have to wait. See ``available_chunk_tokens`` in ``mem_cache/prefill_budget.py``.
    """
    return _chunked(config) and config.model in ("swa", "pure_swa")


_Kind = tuple[str, Callable[[EngineConfig], bool]]


def _of_actions() -> dict[str, _Kind]:
    kinds: dict[str, _Kind] = {}
    for action in get_args(Action):
        kinds[f"action.{action.__struct_config__.tag}"] = ("played", action.drawn_on)
    for stage in STAGES:
        where = _chunked if stage.endswith("_chunk") and stage != "first_chunk" else _always
        kinds[f"stage.{stage}"] = ("StepUntil reached it, the request not answered before", where)
        kinds[f"stage.{stage}.missed"] = ("StepUntil gave up, or the request was answered before", where)
    return kinds


_OF_BATCHES: dict[str, _Kind] = {
    "batch.extend": ("prefill batches", lambda config: config.disaggregation_mode != "decode"),
    "batch.decode": ("decode batches", lambda config: config.disaggregation_mode != "prefill"),
    "batch.mixed": ("prefill batches with decoding requests in them", lambda config: config.enable_mixed_chunk),
    "chunk.prompts": ("prompts that took several chunks", _chunked),
    "chunk.middle": ("chunks but the last", _chunked),
    "chunk.parked": ("batches that ran without the request in the chunked slot", _parked),
    "retract.memory": ("requests retracted for lack of memory", _always),
    "retract.pause": ("requests retracted by a pause", _always),
    "retract.preempt": ("running requests that gave way to a higher priority", _preempting),
}

_OF_THE_CACHE: dict[str, _Kind] = {
    "tree.evict": ("nodes that the scheduler evicted from the prefix tree", _in_tree),
    "tree.split": ("nodes that were split where prompts diverge", _in_tree),
    "cache.hits": ("prefills that found a cached prefix", _cached),
    "cache.tokens": ("prompt tokens found there", _cached),
    "cache.outputs": ("hits that reach into the output of an earlier request", _cached),
    "cache.retracted": ("hits of a request that was retracted", _cached),
}


def _of_interruptions() -> dict[str, _Kind]:
    """Aborts, pauses and flushes, and how requests end."""
    kinds: dict[str, _Kind] = {}
    kinds |= {f"abort.{place}": (f"aborts of a request {what}", _always) for place, what in (PLACES | _NOWHERE).items()}
    kinds["abort.chunked"] = (kinds["abort.chunked"][0], _chunked)
    kinds |= {f"pause.{mode}": (f"pauses with running requests {what}", _always) for mode, what in _MODES.items()}
    kinds |= {f"pause.at_{place}": (f"pauses that met a request {what}", _always) for place, what in PLACES.items()}
    kinds["pause.at_chunked"] = (kinds["pause.at_chunked"][0], _chunked)
    kinds["pause.at_idle"] = ("pauses of an engine with nothing to do", _always)
    kinds |= {
        "flush.accepted": ("flushes that emptied the cache", _always),
        "flush.refused": ("flushes refused because something ran", _always),
    }
    kinds |= {f"refused.{why}": (f"requests refused {what}", _always) for why, what in _REFUSALS.items()}
    kinds["refused.queue_full"] = (kinds["refused.queue_full"][0], _limited)
    return kinds | {f"finish.{how}": (f"requests ended {what}", _always) for how, what in _FINISHES.items()}


_OF_STEPS: dict[str, _Kind] = {
    "step.idle": ("steps without a request to serve", _always),
    "step.paused": ("steps of a paused engine", _always),
    "step.rows_full": ("steps in which requests waited and no row was free", _always),
    "step.memory_full": ("steps in which requests waited although a row was free", _always),
    "max.pool_percent": ("of the KV pool in use by requests, tree pages that can be evicted left out", _always),
    "max.running": ("requests in the running batch", _always),
    "max.waiting": ("requests in the waiting queue", _always),
    "max.chunks": ("chunks of one prompt", _chunked),
}

_KINDS: dict[str, _Kind] = (
    _of_actions() | _OF_BATCHES | _OF_THE_CACHE | _of_interruptions() | reach_drafts.KINDS | _OF_STEPS
    | reach_drafts.MOST
)  # fmt: skip

KINDS: dict[str, str] = {kind: what for kind, (what, _) in _KINDS.items()}
"""What each kind counts, in the order of a table. A run may count other kinds too, such as another batch mode."""

_WHERE = {kind: where for kind, (_, where) in _KINDS.items()}

_NOT_AIMED_AT = (".missed",)
"""Suffixes of the kinds that need not occur."""


def applies(kind: str, config: EngineConfig) -> bool:
    """Whether ``kind`` can occur on ``config`` at all; True for a kind that is not listed."""
    return _WHERE.get(kind, _always)(config)


def dead_kinds(reach: Mapping[str, int], configs: Iterable[EngineConfig]) -> list[str]:
    """Kinds that could occur on one of ``configs`` and never did."""
    members = list(configs)
    missing = [kind for kind in KINDS if not reach.get(kind) and not kind.endswith(_NOT_AIMED_AT)]
    return [kind for kind in missing if any(applies(kind, config) for config in members)]


def add_reach(total: dict[str, int], reach: Mapping[str, int]) -> None:
    """Add the counts of one run to ``total``."""
    for kind, count in reach.items():
        total[kind] = max(total.get(kind, 0), count) if kind.startswith("max.") else total.get(kind, 0) + count
