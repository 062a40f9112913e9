"""Holding resources on purpose, through the engine's own calls: ``alloc``, ``inc_lock_ref``, real requests.

Whatever is taken is remembered and given back by `release`, whatever happens in between; but for a flush of the cache,
which takes it back from everybody: SGLang resets pool and tree when it is idle, and it knows no exhauster.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.node_handles import get_node_lock_ref, iter_node_handles

# SGLang's idle check counts pages and knows no exhauster: strict, it would call each held page a leak. It reads the
# setting each time; without strictness it logs instead of raising.
_IDLE_CHECK = "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE"


class _IdleCheck:
    """Whether SGLang's idle check is strict: lenient for a while, then what the user has set, or has not."""

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
    """Holds free KV pages; SGLang's idle check is lenient meanwhile. ``flushes`` counts successful flushes."""

    def __init__(self, scheduler: Any, flushes: Callable[[], int] = lambda: 0) -> None:
        self._scheduler = scheduler
        self._flushes = flushes
        self._seen_flushes = flushes()
        self._held: list[Any] = []
        self._check = _IdleCheck()

    @property
    def held_slots(self) -> list[int]:
        """Token slots held, in allocation order."""
        self._forget_what_was_flushed()
        return [slot for tensor in self._held for slot in tensor.tolist()]

    def _forget_what_was_flushed(self) -> None:
        if self._seen_flushes != self._flushes():
            self._seen_flushes = self._flushes()
            self._held.clear()
            self._check.restore()

    def exhaust(self, *, leave_pages: int) -> None:
        """Take pages until ``leave_pages`` are free; nothing happens when no more than that are free already.

        Raises ``ValueError`` for a negative number or one above the pool, ``RuntimeError`` when the allocator
        refuses what it said was free.
        """
        self._forget_what_was_flushed()
        allocator, page_size = self._scheduler.token_to_kv_pool_allocator, self._scheduler.page_size
        total = allocator.size // page_size
        if not 0 <= leave_pages <= total:
            raise ValueError(f"exhaust_kv: leave_pages must be 0 to {total} (the pool's pages), got {leave_pages}")
        need = allocator.available_size() - leave_pages * page_size
        if need <= 0:
            return
        held = _alloc(allocator, need)
        if held is None:
            raise RuntimeError(f"exhaust_kv: the allocator refused {need} tokens that it had counted as free")
        # A view into the free list would change under us when the list is edited in place.
        self._held.append(held.clone())
        self._check.be_lenient()

    def release(self) -> None:
        self._forget_what_was_flushed()
        held, self._held = self._held, []
        for tensor in held:
            self._scheduler.token_to_kv_pool_allocator.free(tensor)
        self._check.restore()


def _alloc(allocator: Any, need: int) -> Any:
    """``need`` tokens, whole pages. A pair of pools with pages of several tokens allocates for requests alone."""
    if not hasattr(allocator, "swa_attn_allocator") or allocator.page_size == 1:
        return allocator.alloc(need)
    start, end = torch.zeros(1, dtype=torch.int64), torch.tensor([need])
    return allocator.alloc_extend(start, start, end, end, torch.tensor([-1]), need)


class ScriptedLockRefExhauster:
    """Holds locks on tree nodes, so that they cannot be evicted. ``flushes`` counts successful flushes."""

    def __init__(self, scheduler: Any, flushes: Callable[[], int] = lambda: 0) -> None:
        self._scheduler = scheduler
        self._flushes = flushes
        self._seen_flushes = flushes()
        self._locked: list[tuple[Any, Any]] = []

    @property
    def locked_handles(self) -> list[Any]:
        """Handles of the nodes whose paths are locked, once per lock."""
        self._forget_what_was_flushed()
        return [handle for handle, _ in self._locked]

    @property
    def locks(self) -> list[tuple[Any, Any]]:
        """The same with the receipt of each lock; None where a release gives none."""
        self._forget_what_was_flushed()
        return list(self._locked)

    def _forget_what_was_flushed(self) -> None:
        if self._seen_flushes != self._flushes():
            self._seen_flushes = self._flushes()
            self._locked.clear()

    def exhaust(self, leave_refs: int) -> None:
        """Lock unlocked nodes until at most ``leave_refs`` unlocked ones are left. No radix cache: nothing to do.

        With recurrent states no more locks than there are spare states (`kv_records.spare_states`): each lock may hold
        one, if not now then when a request ends at that node. The rest is promised to whoever gets a row, and a request
        that does not get it ends the scheduler; but no request has a lock without a row, so that is our own doing.
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
