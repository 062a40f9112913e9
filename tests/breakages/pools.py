"""Breakages of the pools: pages, request rows, slots of recurrent states."""

from __future__ import annotations

from typing import Any

from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.faults import triggered
from sr_fuzz.script import Action, Prompt, StartReq, Step
from sr_fuzz.sglang_api.request_state import kv_state, window_freed
from sr_fuzz.sglang_api.trees import read_tree
from tests.breakages.breaking import ONE, TWO, call, row_of, running, state, with_one_more

WINDOW, STATES = CONFIG_SETS["swa"]["swa-chunk16"], CONFIG_SETS["mamba"]["mamba-chunk16"]
RUST = CONFIG_SETS["rust"]["rust-chunk16"]

# It decodes for longer than the window, so that positions leave it.
LONG: tuple[Action, ...] = (StartReq("r0", Prompt(length=20), max_new_tokens=24, ignore_eos=True), Step(30))

# Its prompt is a prefix in the tree.
CACHED: tuple[Action, ...] = (
    StartReq("cached", Prompt(length=12), max_new_tokens=1),
    Step(3),
    StartReq("r0", Prompt(length=14, unique_tail=2), ignore_eos=True),
    Step(8),
)

# -- pages -----------------------------------------------------------------------------------------------------


@state("kv_pages:foreign_page")
def foreign_page(scheduler: Any) -> bool:
    """A page behind the last one is put into the free list."""
    pool = scheduler.token_to_kv_pool_allocator
    pool.free_pages = with_one_more(pool.free_pages, pool.size + 1)
    return True


@state("kv_pages:prefix_not_in_tree", CACHED)
def prefix_not_in_tree(scheduler: Any) -> bool:
    """The first position of a request's row, which is the tree's, is redirected to a page of its own."""
    for req in running(scheduler):
        if 0 < kv_state(req).protected < kv_state(req).allocated:
            row = row_of(scheduler, req)
            row[0] = row[-1]
            return True
    return False


FLUSH = "managers.scheduler_components.flush_wrapper:SchedulerFlushWrapper"


@call("kv_pages:lost_at_flush", FLUSH, "handle")
@call("mamba_slots:lost_at_flush", FLUSH, "handle", LONG, STATES, alone="kv_pages: a node with a state has pages")
def flush_of_nothing(original, wrapper, message):
    """A flush says that it succeeded, and does nothing."""
    from sglang.srt.managers.io_struct import FlushCacheReqOutput

    triggered()
    return FlushCacheReqOutput(success=True)


def unchecked(original, scheduler):
    """Nothing is done when the scheduler is idle, so that SGLang's own check does not find the breakage first."""


_RESULTS = "managers.scheduler_components.batch_result_processor"
_UNCHECKED = {("managers.scheduler:Scheduler", "on_idle"): unchecked}
_HELD = "kv_pages: who has a state or a lock has pages"


@call("kv_pages:held_at_end", _RESULTS, "release_kv_cache", also=_UNCHECKED)
@call("mamba_slots:held_at_end", _RESULTS, "release_kv_cache", LONG, STATES, alone=_HELD, also=_UNCHECKED)
@call("tree_locks:locked_at_end", _RESULTS, "release_kv_cache", alone=_HELD, also=_UNCHECKED)
@call("tree_locks:locked_at_end@rust", _RESULTS, "release_kv_cache", ONE, RUST, alone=_HELD, also=_UNCHECKED)
@call("window_locks:locked_at_end", _RESULTS, "release_kv_cache", ONE, WINDOW, alone=_HELD, also=_UNCHECKED)
@call("state_locks:locked_at_end", _RESULTS, "release_kv_cache", LONG, STATES, alone=_HELD, also=_UNCHECKED)
def never_released(original, req, tree_cache, *args, **kwargs):
    """A request that ends keeps its pages, states and locks."""
    triggered()


# -- pages of the window ---------------------------------------------------------------------------------------


def _window(scheduler: Any) -> Any:
    return scheduler.token_to_kv_pool_allocator.swa_attn_allocator


def _table(scheduler: Any) -> Any:
    return scheduler.token_to_kv_pool_allocator.full_to_swa_index_mapping


def _own_in_window(scheduler: Any) -> list[int]:
    """Slots of a request's own positions that are in the window."""
    for req in running(scheduler):
        kv, row = kv_state(req), row_of(scheduler, req)
        first = max(kv.protected, window_freed(req, 1)[1])
        if kv.allocated - first > 1:
            return row[first:].tolist()
    return []


@state("kv_pages:window_foreign_page", LONG, WINDOW)
def window_foreign_page(scheduler: Any) -> bool:
    """A page behind the last one is put into the free list of the window's pool."""
    pool = _window(scheduler)
    pool.free_pages = with_one_more(pool.free_pages, pool.size + 1)
    return True


@state("kv_pages:window_double_free", LONG, WINDOW)
def window_double_free(scheduler: Any) -> bool:
    """A free page of the window's pool is put into its free list again."""
    pool = _window(scheduler)
    pool.free_pages = with_one_more(pool.free_pages, int(pool.free_pages[-1]))
    return True


@state("kv_pages:window_use_after_free", LONG, WINDOW)
def window_use_after_free(scheduler: Any) -> bool:
    """The window's page of a running request's newest position is put into the free list."""
    slots = _own_in_window(scheduler)
    if slots:
        _window(scheduler).free_pages = with_one_more(_window(scheduler).free_pages, int(_table(scheduler)[slots[-1]]))
    return bool(slots)


@state("kv_pages:window_owned_twice", LONG, WINDOW)
def window_owned_twice(scheduler: Any) -> bool:
    """Two positions are mapped to one page of the window's pool: that of a tree node, and a request's own."""
    slots, nodes = _own_in_window(scheduler), read_tree(scheduler.tree_cache)
    kept = [slot for node in nodes for slot in node.window_slots or ()]
    if slots and kept:
        _table(scheduler)[slots[-1]] = kept[0]
    return bool(slots and kept)


@state("kv_pages:window_mapping_differs", LONG, WINDOW)
def window_mapping_differs(scheduler: Any) -> bool:
    """The mapping gives a tree node's first slot another slot of the window than the node has."""
    nodes = [node for node in read_tree(scheduler.tree_cache) if node.window_slots]
    if nodes:
        _table(scheduler)[nodes[0].slots[0]] += 1
    return bool(nodes)


@state("kv_pages:window_kept", LONG, WINDOW)
def window_kept(scheduler: Any) -> bool:
    """A position that has left the window is mapped to a slot again."""
    for req in running(scheduler):
        first, end = window_freed(req, 1)
        if end > first:
            _table(scheduler)[row_of(scheduler, req)[first]] = 1
            return True
    return False


# -- request rows ----------------------------------------------------------------------------------------------


@state("request_rows:foreign_row")
def foreign_row(scheduler: Any) -> bool:
    """A row behind the last one is put into the free list."""
    pool = scheduler.req_to_token_pool
    pool.free_slots.append(pool.req_to_token.shape[0])
    return True


@state("request_rows:double_free")
def row_freed_twice(scheduler: Any) -> bool:
    """A free row is put into the free list again."""
    free = scheduler.req_to_token_pool.free_slots
    free.append(free[-1])
    return True


@state("request_rows:use_after_free")
def used_row_freed(scheduler: Any) -> bool:
    """The row of a running request is put into the free list."""
    for req in running(scheduler)[:1]:
        scheduler.req_to_token_pool.free_slots.append(kv_state(req).row)
        return True
    return False


@state("request_rows:owned_twice", TWO, alone="kv_pages: who shares a row shares its pages")
def shared_row(scheduler: Any) -> bool:
    """A running request takes the row of another one."""
    reqs = running(scheduler)
    if len(reqs) < 2:
        return False
    reqs[1].kv.req_pool_idx = reqs[0].kv.req_pool_idx
    return True


# -- recurrent states ------------------------------------------------------------------------------------------


def _states(scheduler: Any) -> Any:
    return scheduler.req_to_token_pool.mamba_allocator


@state("mamba_slots:foreign_slot", LONG, STATES)
def foreign_state(scheduler: Any) -> bool:
    """A slot behind the last one is put into the free list."""
    pool = _states(scheduler)
    pool.free_slots = with_one_more(pool.free_slots, pool.size + 1)
    return True


@state("mamba_slots:use_after_free", LONG, STATES)
def used_state_freed(scheduler: Any) -> bool:
    """The slot of a running request is put into the free list."""
    for req in running(scheduler)[:1]:
        _states(scheduler).free_slots = with_one_more(_states(scheduler).free_slots, int(req.kv.mamba_pool_idx))
        return True
    return False


@state("mamba_slots:owned_twice", TWO, STATES)
def shared_state(scheduler: Any) -> bool:
    """A running request takes the state of another one."""
    reqs = running(scheduler)
    if len(reqs) < 2:
        return False
    reqs[1].kv.mamba_pool_idx = reqs[0].kv.mamba_pool_idx
    return True
