"""Breakages of the prefix tree and of the KV that it points at: locks, keys, content, SGLang's own checks."""

from __future__ import annotations

from typing import Any

from sr_fuzz.faults.patching import drop_lock
from sr_fuzz.script import Action, EngineConfig
from sr_fuzz.sglang_api.request_state import kv_state
from tests.breakages.breaking import CONFIG, ONE, row_of, running, state
from tests.breakages.pools import LONG, RUST, STATES, WINDOW

_FULL, _WINDOW, _STATE = 0, 1, 2
"""Indices in a node's component data."""

_LOCKS_FIRST = "tree_locks: a lock on a component of a node is one on the node as well"


def _nodes(scheduler: Any) -> list[Any]:
    """SGLang's own nodes, without the root."""
    found, open_ = [], [scheduler.tree_cache.tree_core.root_node]
    while open_:
        children = list(open_.pop().children.values())
        found += children
        open_ += children
    return found


# -- locks -----------------------------------------------------------------------------------------------------


def _without_node(rule: str, actions: tuple[Action, ...], config: EngineConfig, alone: str = "") -> None:
    @state(rule, actions, config, alone)
    def lock_of_no_node(scheduler: Any) -> bool:
        """The lock of a running request names a node that is not in the tree."""
        locked = [req for req in running(scheduler) if req.lock is not None]
        for req in locked[:1]:
            req.lock.node = 10**6
        return bool(locked)


_without_node("tree_locks:locked_node_gone", ONE, CONFIG)
_without_node("window_locks:locked_node_gone", ONE, WINDOW, _LOCKS_FIRST)
_without_node("state_locks:locked_node_gone", LONG, STATES, _LOCKS_FIRST)


def _counted(rule: str, component: int, change: int, actions: tuple[Action, ...], config: EngineConfig) -> None:
    @state(rule, actions, config)
    def wrong_count(scheduler: Any) -> bool:
        """The lock count of a component of a node is off by one."""
        wanted = [node.component_data[component] for node in _nodes(scheduler)]
        wanted = [data for data in wanted if data.value is not None and data.lock_ref + change >= 0]
        for data in wanted[:1]:
            data.lock_ref += change
        return bool(wanted)


_counted("window_locks:lock_without_holder", _WINDOW, 1, ONE, WINDOW)
_counted("state_locks:lock_without_holder", _STATE, 1, LONG, STATES)
_counted("state_locks:holder_without_lock", _STATE, -1, LONG, STATES)

# -- keys and content ------------------------------------------------------------------------------------------


@state("kv_content:key_and_value_differ")
def short_key(scheduler: Any) -> bool:
    """A node's key loses its last token."""
    for node in _nodes(scheduler):
        if len(node.key) > 1:
            node.key = node.key[: len(node.key) - 1]
            return True
    return False


@state("kv_content:wrong_window_content", LONG, WINDOW)
def overwritten_window(scheduler: Any) -> bool:
    """The window's KV of a running request's newest complete position is overwritten; that of full attention is not."""
    model = scheduler.tp_worker.model_runner.model
    for req in running(scheduler):
        slot = row_of(scheduler, req)[kv_state(req).committed - 1 :][:1].long()
        model._window_pool[model._to_window(slot).long(), 0, 0] += 1
        return True
    return False


@state("kv_content:window_missing", LONG, WINDOW, alone="kv_pages: it follows the mapping of each page")
def unmapped_window(scheduler: Any) -> bool:
    """The newest complete position of a running request has no slot in the window's pool."""
    for req in running(scheduler):
        slot = int(row_of(scheduler, req)[kv_state(req).committed - 1])
        scheduler.token_to_kv_pool_allocator.full_to_swa_index_mapping[slot] = 0
        return True
    return False


# -- SGLang's own checks ---------------------------------------------------------------------------------------


@state("sglang_tree_check:failed")
def foreign_child(scheduler: Any) -> bool:
    """A node of the tree has another parent than the one that lists it."""
    for node in _nodes(scheduler):
        node.parent = node
        return True
    return False


@state("sglang_busy_check:failed")
def wrong_protected(scheduler: Any) -> bool:
    """The tree's count of protected tokens is off by one."""
    if not running(scheduler):
        return False
    tree = scheduler.tree_cache
    honest = tree.protected_size
    tree.protected_size = lambda: honest() + 1
    return True

# -- the Rust core, of which only slots are seen ---------------------------------------------------------------


@state("tree_locks:holder_without_lock@rust", ONE, RUST)
def rust_unlocked(scheduler: Any) -> bool:
    """The tree releases the lock of a running request, which does not know it."""
    for req in running(scheduler)[:1]:
        drop_lock(scheduler.tree_cache, req)
        return True
    return False


@state("tree_locks:lock_without_holder@rust", ONE, RUST)
def rust_locked(scheduler: Any) -> bool:
    """A lock is taken for nobody, on the node of a request that ends."""
    for req in running(scheduler)[:1]:
        scheduler.tree_cache.inc_lock_ref(req.lock.node)
        return True
    return False
