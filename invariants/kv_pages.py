"""No page is leaked, freed twice, used after it was freed, or owned twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sr_fuzz.invariants.base import Invariant, Problem, names, numbers

from sr_fuzz.view.view import SchedulerView


class KvPages(Invariant):
    """The pool's pages are partitioned exactly.

    Formula: ``{1 … N}`` is the disjoint union of the free pages (pending ones included), the pages of tree nodes, the
    pages of ``req_to_token[row, cache_protected_len : kv_allocated_len]`` for every KV-holding request and for every
    streaming session that holds KV while no turn of it is alive (`sr_fuzz.view.sessions`), and the pages that an
    exhauster holds; and every page of ``[: cache_protected_len]`` of such a row is a page of the tree.

    Source: ``release_kv_cache`` in ``mem_cache/common.py`` (what a request frees and what it leaves to the tree),
    ``mem_cache/allocator`` (page 0 is padding, ids start at 1).

    With a sliding window the same holds for its own pool: its pages ``{1 … N}`` are the free ones, those of the window
    part of tree nodes, and those that ``full_to_swa_index_mapping`` gives for a request's own positions outside
    ``[swa_dead_lo, evicted)`` and for held pages. Inside that interval a position has no window slot, and a node's
    window part is what the mapping says for its slots. Where the window's pool is the only one, a request's own pages
    are those outside the interval.

    Source of the window's part: ``SWATokenToKVPoolAllocator`` (``alloc``, ``free``, ``free_swa``) in
    ``mem_cache/allocator/swa.py``, ``free_swa_out_of_window_slots`` in ``mem_cache/common.py``, ``SWAComponent``.

    Covers: one pool for all layers, full attention beside a sliding window, a sliding window alone; with or without a
    prefix tree, any page size. With a Rust tree core the pages of the tree are known, but not which node owns which,
    and not those of a window.

    Known false alarms: 0.5.16 keeps a stale ``free_group`` (handled in `sr_fuzz.sglang_api.allocators`). *Every request
    object ever seen* is counted, not the queues: a lost request still owns its pages.
    """

    name = "kv_pages"
    family = "memory"

    def not_covered(self, view: SchedulerView) -> str | None:
        if view.has_window_pool:
            return view.unreadable_tree
        return None

    def check(self, view: SchedulerView) -> Problem | None:
        problem = self._partition(self._claims(view), view.num_pages, "") or self._prefix_problem(view)
        if problem is None and view.has_window_pool:
            window = self._partition(self._window_claims(view), view.num_window_pages, "window_")
            problem = self._window_problem(view) or window
        return problem

    def _claims(self, view: SchedulerView) -> Iterator[tuple[int, str]]:
        now = view.now
        for page in now.free_pages:
            yield page, "free"
        for owner, slots in now.tree_owners:
            for page in view.pages_of(slots):
                yield page, owner
        for holder in now.holders:
            for page in view.pages_of(holder.own_in_window() if view.sees_window_only else holder.own):
                yield page, holder.name
        for page in now.held_pages:
            yield page, "exhauster"

    def _window_claims(self, view: SchedulerView) -> Iterator[tuple[int, str]]:
        now = view.now
        for page in now.free_window_pages:
            yield page, "free"
        for node in now.nodes:
            for page in view.pages_of(node.window_slots or ()):
                yield page, f"tree node {node.id}"
        for holder in now.holders:
            for page in view.pages_of(self._mapped(view, holder.own)):
                yield page, holder.name
        for page in view.pages_of(self._mapped(view, view.context.held_slots)):
            yield page, "exhauster"

    @staticmethod
    def _mapped(view: SchedulerView, slots: list[int]) -> list[int]:
        table = view.now.window_slot
        return [table[slot] for slot in slots if table[slot]]

    def _partition(self, claims: Iterable[tuple[int, str]], count: int, pool: str) -> Problem | None:
        owners: dict[int, list[str]] = {}
        for page, owner in claims:
            owners.setdefault(page, []).append(owner)
        if len(owners) == count and all(len(who) == 1 for who in owners.values()):
            if min(owners) == 1 and max(owners) == count:
                return None
        return self._explain(owners, count, pool)

    @staticmethod
    def _explain(owners: dict[int, list[str]], count: int, pool: str) -> Problem | None:
        of = "of the sliding window " if pool else ""
        foreign = [page for page in owners if not 1 <= page <= count]
        if foreign:
            who = names(sorted({owner for page in foreign for owner in owners[page]}))
            return Problem(f"{pool}foreign_page", f"pages {of}{numbers(foreign)} outside 1..{count} are used by {who}")
        twice = [page for page, who in owners.items() if who.count("free") > 1]
        if twice:
            return Problem(f"{pool}double_free", f"pages {of}{numbers(twice)} are in the free list more than once")
        for rule, wanted in (("use_after_free", True), ("owned_twice", False)):
            shared = {page: who for page, who in owners.items() if len(who) > 1 and ("free" in who) is wanted}
            if shared:
                detail = "; ".join(f"page {page}: {', '.join(who)}" for page, who in sorted(shared.items())[:6])
                return Problem(f"{pool}{rule}", f"{len(shared)} pages {of}have two owners: {detail}")
        missing = [page for page in range(1, count + 1) if page not in owners]
        if missing:
            return Problem(
                f"{pool}leaked",
                f"pages {of}{numbers(missing)} are neither free nor in the tree nor owned by a request "
                f"({len(missing)} of {count})",
            )
        return None

    def _window_problem(self, view: SchedulerView) -> Problem | None:
        table = view.now.window_slot
        for node in view.now.nodes:
            if node.window_slots is not None and node.window_slots != [table[slot] for slot in node.slots]:
                return Problem(
                    "window_mapping_differs",
                    f"tree node {node.id} has the window slots {node.window_slots[:6]}…, the mapping says "
                    f"{[table[slot] for slot in node.slots][:6]}…",
                )
        for holder in view.now.holders:
            lo, hi = holder.window_freed
            for at, slot in enumerate(holder.own, start=holder.kv.protected):
                if (lo <= at < hi) == bool(table[slot]):
                    own = f"{holder.kv.protected}..{holder.kv.allocated}"
                    return Problem(
                        "window_kept" if table[slot] else "window_gone",
                        f"{holder.name} has {'a' if table[slot] else 'no'} window slot at position {at}, but has given "
                        f"back those of {lo}..{hi} (its own positions are {own})",
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
        """After the drain no request or session may own pages; that one is not answered is for `Liveness` to say."""
        if view.unanswered():
            return None
        keeping = [f"{h.name} ({len(view.pages_of(h.own))} pages)" for h in view.now.holders]
        if keeping:
            return Problem("held_at_end", f"requests still hold KV after everything was drained: {names(keeping)}")
        return None

    def check_flushed(self, view: SchedulerView) -> Problem | None:
        """After a flush the whole pool is free; a refused flush is reported by `Liveness`.

        By `check`, that of the window is free as well then: nothing is left that could own any of its pages.
        """
        free = len(view.now.free_pages)
        if view.last_flush_ok and free != view.num_pages:
            return Problem("lost_at_flush", f"after the flush {free} of {view.num_pages} pages are free")
        return None
