"""Recurrent states (Mamba, linear attention): no slot leaked or shared, and each holds the state it should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sr_fuzz.invariants.base import Invariant, Problem, names, numbers

from sr_fuzz.oracle.function import digest_of
from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.trees import NodeView
from sr_fuzz.view.view import SchedulerView, name_of


def _held(req: Any) -> list[int]:
    # Without an extra buffer a request that ends leaves its slot to the tree, and keeps the number all the same.
    return [] if req.finished() and request_state.kv_state(req) is None else request_state.state_slots(req)


class StateSlots(Invariant):
    """Slots of recurrent states are partitioned exactly.

    Formula: ``{1 … size}`` is the disjoint union of the free slots, the slots that tree nodes keep, and those of
    requests: ``mamba_pool_idx`` and what is not -1 in ``mamba_ping_pong_track_buffer``, of every request ever seen
    that has not both ended and given back its row. After the drain no request has one.

    Source: ``MambaSlotAllocator`` (slot 0 is padding), ``HybridReqToTokenPool.alloc`` and ``free_mamba_cache``,
    ``MambaComponent.prepare_for_caching_req`` (what a request hands to the tree).
    Covers: models with recurrent states, with or without a prefix tree that can be walked, with and without an extra
    buffer; not the int8 checkpoint pool, whose slots the tree would keep instead.
    """

    name = "mamba_slots"
    family = "memory"

    def no_subject(self, view: SchedulerView) -> str | None:
        return "the model has no recurrent states" if view.state_allocator is None else None

    def not_covered(self, view: SchedulerView) -> str | None:
        if view.facts.state_checkpoints:
            return "the tree keeps int8 checkpoints, which have slots of their own"
        return view.unreadable_tree

    def check(self, view: SchedulerView) -> Problem | None:
        owners: dict[int, list[str]] = {}
        for slot, owner in self._claims(view):
            owners.setdefault(slot, []).append(owner)
        size = view.state_allocator.size
        foreign = [slot for slot in owners if not 1 <= slot <= size]
        if foreign:
            who = names(sorted({owner for slot in foreign for owner in owners[slot]}))
            return Problem("foreign_slot", f"slots {numbers(foreign)} outside 1..{size} are used by {who}")
        twice = [slot for slot, who in owners.items() if who.count("free") > 1]
        if twice:
            return Problem("double_free", f"slots {numbers(twice)} are in the free list more than once")
        for rule, wanted in (("use_after_free", True), ("owned_twice", False)):
            shared = {slot: who for slot, who in owners.items() if len(who) > 1 and ("free" in who) is wanted}
            if shared:
                detail = "; ".join(f"slot {slot}: {', '.join(who)}" for slot, who in sorted(shared.items())[:6])
                return Problem(rule, f"{len(shared)} slots have two owners: {detail}")
        missing = [slot for slot in range(1, size + 1) if slot not in owners]
        if missing:
            return Problem("leaked", f"slots {numbers(missing)} are neither free nor in the tree nor held by a request")
        return None

    @staticmethod
    def _claims(view: SchedulerView) -> Iterator[tuple[int, str]]:
        for slot in view.now.free_states:
            yield slot, "free"
        for node in view.now.nodes:
            for slot in node.state_slots:
                yield slot, f"tree node {node.id}"
        for req in view.requests:
            for slot in _held(req):
                yield slot, name_of(req.rid)

    def check_end(self, view: SchedulerView) -> Problem | None:
        keeping = [name_of(req.rid) for req in view.requests if _held(req)]
        if keeping:
            return Problem("held_at_end", f"requests still hold states after everything was drained: {names(keeping)}")
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        """A flushed pool is free as a whole; if the flush was refused, that is for `Liveness` to say."""
        free, size = len(view.now.free_states), view.state_allocator.size
        if view.last_flush_ok and free != size:
            return Problem("lost_at_flush", f"after the flush {free} of {size} slots are free")
        return None


class StateContent(Invariant):
    """A slot holds the state after exactly the tokens it stands for.

    Formula: the state that a tree node keeps has consumed the tokens from the root to the node's end; that of a
    request which holds KV has consumed its first ``kv_committed_len`` tokens.

    Source: the oracle model keeps digest and number of the tokens consumed
    (`sr_fuzz.oracle.models.oracle_hybrid`); SGLang copies one slot to another in ``MambaPool.copy_from``.
    Covers: engines that run the oracle model.

    Known false alarms: a state is copied to a new request, or cleared, by its first forward (``mamba_cow_src_index``,
    ``mamba_needs_clear``): nothing is said about it before. Of a request whose newest token is not known yet, under
    overlap, only the number is compared.
    """

    name = "mamba_content"
    family = "output"

    def no_subject(self, view: SchedulerView) -> str | None:
        return "the model has no recurrent states" if view.state_allocator is None else None

    def not_covered(self, view: SchedulerView) -> str | None:
        if not hasattr(view.model, "read_states"):
            return "the model is not the oracle"
        return view.unreadable_tree

    def check(self, view: SchedulerView) -> Problem | None:
        expected = [*self._of_nodes(view), *self._of_requests(view)]
        if not expected:
            return None
        digests, consumed = (part.tolist() for part in view.model.read_states(torch.tensor([e[0] for e in expected])))
        for (slot, who, tokens, count), digest, number in zip(expected, digests, consumed, strict=True):
            known = count <= len(tokens)
            if number != count or known and digest != digest_of(tokens[:count]):
                return Problem(
                    "wrong_state",
                    f"slot {slot} of {who} holds a state after {number} tokens"
                    f"{', other ones' if number == count else f', expected {count}'}",
                )
        return None

    def _of_nodes(self, view: SchedulerView) -> Iterator[tuple[int, str, list[int], int]]:
        for node in view.now.nodes:
            for slot in node.state_slots:
                tokens = self._path(node)
                yield slot, f"tree node {node.id}", tokens, len(tokens)

    @staticmethod
    def _of_requests(view: SchedulerView) -> Iterator[tuple[int, str, list[int], int]]:
        for holder in view.now.holders:
            slots = request_state.state_slots(holder.req) if holder.req is not None else []
            if slots and not request_state.state_pending(holder.req):
                yield slots[0], holder.name, holder.tokens, holder.kv.committed

    @staticmethod
    def _path(node: NodeView) -> list[int]:
        parts = [node.tokens]
        while node.parent is not None:
            node = node.parent
            parts.append(node.tokens)
        return [token for part in reversed(parts) for token in part]
