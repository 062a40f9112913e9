"""No page leaked, freed twice, used after it was freed, or owned by two."""

from __future__ import annotations

from collections.abc import Iterator

from invariants.base import Invariant, Problem, names, numbers
from sr_fuzz.view.allocators import two_pools
from sr_fuzz.view.view import SchedulerView


class KvPages(Invariant):
    """The pool's pages are partitioned exactly.

    Formula: ``{1 … N}`` is the disjoint union of the free pages (pending ones included), the pages of tree nodes, the
    pages of ``req_to_token[row, cache_protected_len : kv_allocated_len]`` for every request that holds KV and every
    streaming session that does while no turn of it is alive (`sr_fuzz.view.sessions`), and the pages an exhauster
    holds; and every page of ``[: cache_protected_len]`` of such a row is a page of the tree.

    Source: ``release_kv_cache`` in ``mem_cache/common.py`` (what a request frees and what it leaves to the tree),
    ``mem_cache/allocator`` (page 0 is padding, ids start at 1).

    Covers: one pool for all layers, with or without a prefix tree, any page size. Of a Rust core the pages are known,
    not whose they are among its nodes.

    Known false alarms: 0.5.16 keeps a stale ``free_group`` (handled in `sr_fuzz.view.allocators`). *Every request
    object ever seen* is counted, not the queues: a lost request still owns its pages.
    """

    name = "kv_pages"
    family = "memory"

    def not_covered(self, view: SchedulerView) -> str | None:
        if two_pools(view.allocator):
            return "the sliding-window pool's pages are not told apart from the full-attention pool's"
        return None

    def check(self, view: SchedulerView) -> Problem | None:
        owners: dict[int, list[str]] = {}
        for page, owner in self._claims(view):
            owners.setdefault(page, []).append(owner)
        if len(owners) == view.num_pages and all(len(who) == 1 for who in owners.values()):
            if min(owners) == 1 and max(owners) == view.num_pages:
                return self._prefix_problem(view)
        return self._explain(view, owners) or self._prefix_problem(view)

    def _claims(self, view: SchedulerView) -> Iterator[tuple[int, str]]:
        now = view.now
        for page in now.free_pages:
            yield page, "free"
        for owner, slots in now.tree_owners:
            for page in view.pages_of(slots):
                yield page, owner
        for holder in now.holders:
            for page in view.pages_of(holder.own):
                yield page, holder.name
        for page in now.held_pages:
            yield page, "exhauster"

    def _explain(self, view: SchedulerView, owners: dict[int, list[str]]) -> Problem | None:
        foreign = [page for page in owners if not 1 <= page <= view.num_pages]
        if foreign:
            who = names(sorted({owner for page in foreign for owner in owners[page]}))
            return Problem("foreign_page", f"pages {numbers(foreign)} outside 1..{view.num_pages} are used by {who}")
        twice = [page for page, who in owners.items() if who.count("free") > 1]
        if twice:
            return Problem("double_free", f"pages {numbers(twice)} are in the free list more than once")
        for rule, wanted in (("use_after_free", True), ("owned_twice", False)):
            shared = {page: who for page, who in owners.items() if len(who) > 1 and ("free" in who) is wanted}
            if shared:
                detail = "; ".join(f"page {page}: {', '.join(who)}" for page, who in sorted(shared.items())[:6])
                return Problem(rule, f"{len(shared)} pages have two owners: {detail}")
        missing = [page for page in range(1, view.num_pages + 1) if page not in owners]
        if missing:
            return Problem(
                "leaked",
                f"pages {numbers(missing)} are neither free nor in the tree nor owned by a request "
                f"({len(missing)} of {view.num_pages})",
            )
        return None

    def _prefix_problem(self, view: SchedulerView) -> Problem | None:
        if not any(holder.prefix for holder in view.now.holders):
            return None
        in_tree = {slot for _, slots in view.now.tree_owners for slot in slots}
        for holder in view.now.holders:
            lost = [slot for slot in holder.prefix if slot not in in_tree]
            if lost:
                return Problem(
                    "prefix_not_in_tree",
                    f"{holder.name} relies on {len(lost)} slots of its prefix (of {holder.kv.protected}) that the "
                    f"tree does not hold any more: {numbers(lost)}",
                )
        return None

    def check_end(self, view: SchedulerView) -> Problem | None:
        """After the drain nobody may own pages any more."""
        keeping = [f"{h.name} ({len(view.pages_of(h.own))} pages)" for h in view.now.holders]
        if keeping:
            return Problem("held_at_end", f"requests still hold KV after everything was drained: {names(keeping)}")
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        """A flushed pool is free as a whole; if the flush was refused, that is for `Liveness` to say."""
        free = len(view.now.free_pages)
        if view.last_flush_ok and free != view.num_pages:
            return Problem("lost_at_flush", f"after the flush {free} of {view.num_pages} pages are free")
        return None
