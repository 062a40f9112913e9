"""No slot of recurrent states (Mamba, linear attention) is leaked or shared."""

from __future__ import annotations

from collections.abc import Iterator

from sr_fuzz.invariants.base import Invariant, Problem, names, numbers

from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


def _held(req: Request) -> list[int]:
    # Without an extra buffer, a request that ends leaves its slot to the tree but keeps the slot number.
    return [] if req.is_finished and req.kv is None else req.state_slots


class MambaSlots(Invariant):
    """Slots of recurrent states are partitioned exactly.

    Formula: ``{1 … size}`` is the disjoint union of the free slots, the slots that tree nodes keep, and the slots of
    requests: ``mamba_pool_idx`` and the entries other than -1 of ``mamba_ping_pong_track_buffer``, for every request
    ever seen that has not both ended and given back its row. After the drain no request has a slot.

    Source: ``MambaSlotAllocator`` (slot 0 is padding), ``HybridReqToTokenPool.alloc`` and ``free_mamba_cache``,
    ``MambaComponent.prepare_for_caching_req`` (what a request hands to the tree).
    Covers: models with recurrent states, with or without a prefix tree that can be walked, with and without an extra
    buffer; not with the int8 checkpoint pool, since the tree would keep slots of that pool instead.
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
        if view.unanswered():
            return None  # who is not answered may have a slot; that is for `Liveness` to say
        keeping = [name_of(req.rid) for req in view.requests if _held(req)]
        if keeping:
            return Problem("held_at_end", f"requests still hold states after everything was drained: {names(keeping)}")
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        """After a flush the whole pool is free; a refused flush is reported by `Liveness`."""
        free, size = len(view.now.free_states), view.state_allocator.size
        if view.last_flush_ok and free != size:
            return Problem("lost_at_flush", f"after the flush {free} of {size} slots are free")
        return None
