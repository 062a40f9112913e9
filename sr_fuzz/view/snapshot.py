"""The state between two steps: pages, rows, nodes, requests and queues.

It is read lazily, so that an invariant that is switched off costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.allocators import free_full_pages, free_window_pages
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.sglang_api.trees import NodeView, is_rust, locked_slots, read_tree, tree_slots
from sr_fuzz.view.sessions import SlotView, kept_tokens, read_slots

# Matches the number of the run, where scripts share a server, and the dot at the end; the part between them tells the
# copies of a request with ``n`` samples apart.
_RID_SUFFIX = re.compile(r"(?:\.\d+)?(\.(?:p|c\d+))?\.\Z")


def name_of(rid: str) -> str:
    """The script's name for a request id, without the suffix that the interpreter appends."""
    return _RID_SUFFIX.sub(r"\1", rid)


@dataclass(slots=True)
class HolderView:
    """A request that holds KV, or a streaming session between two turns."""

    name: str
    kv: request_state.KvState
    prefix: list[int]
    """Slots of the positions that the tree owns."""
    own: list[int]
    """Slots of the positions that the holder owns itself."""
    req: Request | None = None
    """None for a session."""
    kept: Callable[[], list[int]] = list
    """Returns the tokens that a session records."""
    window_freed: tuple[int, int] = (0, 0)
    """Own row positions [from, to) of which the slots in the sliding window's pool have been given back."""

    @property
    def tokens(self) -> list[int]:
        """The known tokens that these slots stand for, from the first position on."""
        return self.kept() if self.req is None else [*self.req.origin_input_ids, *self.req.output_ids]

    @property
    def row(self) -> list[int]:
        """Slots of all positions of the holder."""
        return self.prefix + self.own

    def own_in_window(self) -> list[int]:
        """Slots of its own positions except those that left the window."""
        lo, hi = (max(0, at - self.kv.protected) for at in self.window_freed)
        return self.own[:lo] + self.own[hi:]


class Viewed(Protocol):
    """The part of the view that a snapshot reads."""

    scheduler: Any
    context: Any
    requests: list[Request]
    allocator: Any
    state_allocator: Any
    page_size: int
    window: int | None

    def answered(self, rid: str) -> bool: ...

    def places(self) -> list[tuple[str, list[Request]]]: ...

    def pages_of(self, slots: Iterable[int]) -> list[int]: ...


class Snapshot:
    """The state between two steps; each part is read when it is first asked for."""

    def __init__(self, view: Viewed, step: int) -> None:
        self._view = view
        self.step = step

    @cached_property
    def free_pages(self) -> list[int]:
        return free_full_pages(self._view.allocator)

    @cached_property
    def free_window_pages(self) -> list[int]:
        """Free pages of the sliding window's own pool."""
        return free_window_pages(self._view.allocator)

    @cached_property
    def window_slot(self) -> list[int]:
        """For each slot of the full pool its slot in the window's pool; 0 where there is none."""
        return self._view.allocator.full_to_swa_index_mapping.tolist()

    @cached_property
    def free_states(self) -> list[int]:
        """Free slots for recurrent states."""
        return self._view.state_allocator.free_slots.tolist()

    @cached_property
    def nodes(self) -> list[NodeView]:
        return read_tree(self._view.scheduler.tree_cache)

    @cached_property
    def tree_owners(self) -> list[tuple[str, list[int]]]:
        """Slots of the prefix tree with the name of their owner: a node, or the tree where nodes cannot be told."""
        tree = self._view.scheduler.tree_cache
        if is_rust(tree):
            return [("the tree", tree_slots(tree))]
        return [(f"tree node {node.id}", node.slots) for node in self.nodes]

    @cached_property
    def locked_slots(self) -> set[int]:
        """The locked slots of a tree that tells only slots."""
        return locked_slots(self._view.scheduler.tree_cache)

    @cached_property
    def holders(self) -> list[HolderView]:
        """KV-holding requests, in order of first sight, then sessions that hold KV while no turn of theirs is alive."""
        idle = {slot.session_id: slot for slot in self.session_slots}
        holders = []
        for req in self._view.requests:
            kv = req.kv
            if kv is None or self._only_refers(req):
                continue
            holder = self._holder(name_of(req.rid), kv, req=req)
            if self._view.window is not None:
                holder.window_freed = req.window_freed(self._view.page_size)
            holders.append(holder)
            for slot in self.session_slots:
                if slot.lends_to(req):
                    idle.pop(slot.session_id, None)
        for slot in idle.values():
            kept = partial(kept_tokens, self._view.scheduler, slot.session_id)
            holders.append(self._holder(f"session {name_of(slot.session_id)}", slot.kv, kept=kept))
        return holders

    def _only_refers(self, req: Request) -> bool:
        """Whether the request is an answered turn that only refers to its session's KV.

        What such a turn held belongs to the slot, or is lost.
        """
        return req.is_streaming_turn and self._view.answered(req.rid) and req.rid not in self.placed

    def _holder(self, name: str, kv: request_state.KvState, **known: Any) -> HolderView:
        slots = self._view.scheduler.req_to_token_pool.req_to_token[kv.row, : kv.allocated].tolist()
        return HolderView(name, kv, slots[: kv.protected], slots[kv.protected :], **known)

    @cached_property
    def session_slots(self) -> list[SlotView]:
        """Slots of streaming sessions that hold KV; that of a running turn is included where the session owns it."""
        return read_slots(self._view.scheduler)

    @cached_property
    def held_pages(self) -> list[int]:
        """Pages that the exhauster holds."""
        return self._view.pages_of(self._view.context.held_slots)

    @cached_property
    def free_rows(self) -> list[int]:
        return [int(row) for row in self._view.scheduler.req_to_token_pool.free_slots]

    @cached_property
    def placed(self) -> dict[str, list[str]]:
        """Where each queued request is: request id -> names of the places."""
        places: dict[str, list[str]] = {}
        for place, reqs in self._view.places():
            for req in reqs:
                places.setdefault(req.rid, []).append(place)
        return places
