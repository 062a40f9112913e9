"""Breakages of adapters."""

from __future__ import annotations

from typing import Any

from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.script import Action, Prompt, StartReq, Step
from sr_fuzz.sglang_api.trees import read_tree
from tests.breakages.breaking import running, state

CONFIG = CONFIG_SETS["lora"]["lora-chunk16"]

_TWO: tuple[Action, ...] = (
    StartReq("r0", max_new_tokens=12, ignore_eos=True, lora_path="l0"),
    StartReq("r1", Prompt(1), max_new_tokens=12, ignore_eos=True, lora_path="l1"),
    Step(14),
)


def _manager(scheduler: Any) -> Any:
    return scheduler.tp_worker.model_runner.lora_manager


@state("lora:too_many_adapters", _TWO, CONFIG)
def smaller_limit(scheduler: Any) -> bool:
    """After a batch with two adapters, one at most is allowed."""
    if len({req.lora_id for req in running(scheduler)}) < 2:
        return False
    _manager(scheduler).max_loras_per_batch = 1
    return True


@state("lora:slots_disagree", _TWO, CONFIG)
def half_forgotten(scheduler: Any) -> bool:
    """The slot of a running adapter is still said to be its own, but the adapter is not known to have one."""
    for req in running(scheduler)[:1]:
        _manager(scheduler).memory_pool.uid_to_buffer_id.pop(req.lora_id)
        return True
    return False


@state("lora:not_in_pool", _TWO, CONFIG)
def forgotten(scheduler: Any) -> bool:
    """A running adapter is not known to have a slot, nor is it in one."""
    from sglang.srt.lora.mem_pool import EMPTY_SLOT

    pool = _manager(scheduler).memory_pool
    for req in running(scheduler)[:1]:
        pool.buffer_id_to_uid[pool.uid_to_buffer_id.pop(req.lora_id)] = EMPTY_SLOT
        return True
    return False


@state("lora:node_of_two_adapters", _TWO, CONFIG)
def mixed_node(scheduler: Any) -> bool:
    """In a tree node that nobody uses, the KV of one token was computed with another adapter."""
    unused = [node for node in read_tree(scheduler.tree_cache) if len(node.slots) > 1 and not node.lock_ref]
    for node in unused[:1]:
        scheduler.tp_worker.model_runner.model._pool[node.slots[-1], 0, 2] += 1
    return bool(unused)
