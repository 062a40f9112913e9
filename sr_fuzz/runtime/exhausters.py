"""Exhausters hold resources on purpose, through the engine's own calls: ``alloc``, ``inc_lock_ref``, real requests.

All resources are recorded and freed by `release`. The exception is a flush of the cache, which frees them for all
holders: SGLang resets pool and tree when it is idle, and it does not know about exhausters.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.allocators import full_pool
from sr_fuzz.sglang_api.node_handles import get_node_lock_ref, iter_node_handles

# SGLang's idle check counts pages and does not know about exhausters: in strict mode it would report each held page as
# a leak. It reads the setting each time; when it is not strict it logs instead of raising.
_IDLE_CHECK = "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE"


class _IdleCheck:
    """The setting of SGLang's idle check: lenient while needed, then the user's own value, or unset, again."""

    def __init__(self) -> None:
        self._is_lenient = False
        self._users: str | None = None

    def be_lenient(self) -> None:
        if not self._is_lenient:
            self._is_lenient, self._users = True, os.environ.get(_IDLE_CHECK)
            os.environ[_IDLE_CHECK] = "false"

    def restore(self) -> None:
        if self._is_lenient:
            self._is_lenient = False
            os.environ.pop(_IDLE_CHECK)
            if self._users is not None:
                os.environ[_IDLE_CHECK] = self._users


class ScriptedKvPoolExhauster:
    """Holds free KV pages; SGLang's idle check is lenient meanwhile. ``flushes`` returns the successful flushes."""

    def __init__(self, scheduler: Any, flushes: Callable[[], int] = lambda: 0) -> None:
        self._scheduler = scheduler
        self._flushes = flushes
        self._seen_flushes = flushes()
        self._held: list[Any] = []
        self._check = _IdleCheck()

    @property
    def held_slots(self) -> list[int]:
        """The held token slots, in allocation order."""
        self._forget_what_was_flushed()
        return [slot for tensor in self._held for slot in tensor.tolist()]

    def _forget_what_was_flushed(self) -> None:
        if self._seen_flushes != self._flushes():
            self._seen_flushes = self._flushes()
            self._held.clear()
            self._check.restore()

    def exhaust(self, *, leave_pages: int) -> None:
        """Allocate pages until ``leave_pages`` are free; does nothing when no more than that are free.

        Raises ``ValueError`` for a negative number or one above the pool size, ``RuntimeError`` when the allocator
        refuses pages that it reported as free.
        """
        self._forget_what_was_flushed()
        allocator, page_size = self._scheduler.token_to_kv_pool_allocator, self._scheduler.page_size
        total = full_pool(allocator).size // page_size
        if not 0 <= leave_pages <= total:
            raise ValueError(f"exhaust_kv: leave_pages must be 0 to {total} (the pool's pages), got {leave_pages}")
        need = allocator.available_size() - leave_pages * page_size
        if need <= 0:
            return
        held = _alloc(allocator, need)
        if held is None:
            raise RuntimeError(f"exhaust_kv: the allocator refused {need} tokens that it had counted as free")
        # A copy, because a view into the free list would change when the list is edited in place.
        self._held.append(held.clone())
        self._check.be_lenient()

    def release(self) -> None:
        self._forget_what_was_flushed()
        held, self._held = self._held, []
        for tensor in held:
            self._scheduler.token_to_kv_pool_allocator.free(tensor)
        self._check.restore()


def _alloc(allocator: Any, need: int) -> Any:
    """Allocate whole pages for ``need`` tokens.

    With two pools and pages of several tokens, SGLang's allocator supports allocation for requests only.
    """
    if not hasattr(allocator, "swa_attn_allocator") or allocator.page_size == 1:
        return allocator.alloc(need)
    start, end = torch.zeros(1, dtype=torch.int64), torch.tensor([need])
    return allocator.alloc_extend(start, start, end, end, torch.tensor([-1]), need)


class ScriptedLockRefExhauster:
    """Holds locks on tree nodes, so that they cannot be evicted. ``flushes`` returns the successful flushes."""

    def __init__(self, scheduler: Any, flushes: Callable[[], int] = lambda: 0) -> None:
        self._scheduler = scheduler
        self._flushes = flushes
        self._seen_flushes = flushes()
        self._locked: list[tuple[Any, Any]] = []

    @property
    def locked_handles(self) -> list[Any]:
        """Handles of the nodes whose paths are locked, one for each lock."""
        self._forget_what_was_flushed()
        return [handle for handle, _ in self._locked]

    @property
    def locks(self) -> list[tuple[Any, Any]]:
        """The same with the receipt of each lock; None on releases without receipts."""
        self._forget_what_was_flushed()
        return list(self._locked)

    def _forget_what_was_flushed(self) -> None:
        if self._seen_flushes != self._flushes():
            self._seen_flushes = self._flushes()
            self._locked.clear()

    def exhaust(self, leave_refs: int) -> None:
        """Lock nodes until at most ``leave_refs`` unlocked nodes are left; does nothing without a radix cache.

        With recurrent states there are at most as many locks as spare states (`request_state.spare_states`): each lock
        may hold a state, now or when a request ends at that node. The other states are reserved for requests that get a
        row. A request that does not get its state ends the scheduler; since no request has a lock without a row, that
        would be caused by the exhauster.
        """
        if leave_refs < 0:
            raise ValueError(f"exhaust_lock_refs: leave_refs must be 0 or more, got {leave_refs}")
        self._forget_what_was_flushed()
        tree = self._scheduler.tree_cache
        if getattr(tree, "disable", False):
            return
        spare = request_state.spare_states(self._scheduler.req_to_token_pool)
        while len(free := self._unlocked(tree)) > leave_refs and (spare is None or len(self._locked) < spare):
            result = tree.inc_lock_ref(free[0])
            receipt = result.to_dec_params() if hasattr(result, "to_dec_params") else None
            self._locked.append((free[0], receipt))

    def release(self) -> None:
        self._forget_what_was_flushed()
        locked, self._locked = self._locked, []
        for handle, receipt in locked:
            args = () if receipt is None else (receipt,)
            self._scheduler.tree_cache.dec_lock_ref(handle, *args)

    @staticmethod
    def _unlocked(tree: Any) -> list[Any]:
        return [handle for handle in iter_node_handles(tree) if get_node_lock_ref(tree, handle) == 0]
