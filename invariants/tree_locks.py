"""Every lock on the prefix tree has a holder, and every holder its lock."""

from __future__ import annotations

from invariants.base import Invariant, Problem, names, numbers
from sr_fuzz import versions
from sr_fuzz.view.view import SchedulerView, name_of


class TreeLocks(Invariant):
    """Lock counts are explained exactly.

    Formula: a node's lock count is the number of locks (of KV-holding requests, of streaming sessions, of copies
    between device and host, and of the exhauster) whose node lies in its subtree; the root is left out, it is locked
    for good. After the drain, with nothing held, all are zero.

    Source: ``inc_lock_ref`` / ``dec_lock_ref`` (they walk from the node to the root), ``Req.lock`` in 0.5.22 and
    later, ``Req.last_node`` before; see `sr_fuzz.versions.lock_node`.
    Covers: the full-attention component of trees that can be walked. Of a Rust core, which slots are locked at all:
    exactly the prefixes of the requests that hold KV (``walk_for_kv_canary`` of the core leaves locked nodes out).

    Known false alarms: up to 0.5.21 a waiting request may have a ``last_node`` without holding a lock, so only
    requests that hold KV count there. A later turn of a streaming session holds no lock, its session does.
    """

    name = "tree_locks"
    family = "memory"

    def not_covered(self, view: SchedulerView) -> str | None:
        if not view.has_tree:
            return "there is no prefix tree"
        return None

    def coarse(self, view: SchedulerView) -> str | None:
        reason = view.unreadable_tree
        return None if reason is None else f"which slots are locked, not how often: {reason}"

    def check(self, view: SchedulerView) -> Problem | None:
        if view.unreadable_tree is not None:
            return self._check_slots(view)
        nodes = {node.id: node for node in view.now.nodes}
        holders: dict[int, list[str]] = {}
        for handle, who in self._locks(view):
            node_id = handle if isinstance(handle, int) else handle.id
            node = nodes.get(node_id)
            if node is None:
                if self._is_root(view, node_id):
                    continue
                return Problem("locked_node_gone", f"{who} holds a lock on node {node_id}, which is not in the tree")
            while node is not None:
                holders.setdefault(node.id, []).append(who)
                node = node.parent
        for node in view.now.nodes:
            expected = holders.get(node.id, [])
            if node.lock_ref != len(expected):
                rule = "lock_without_holder" if node.lock_ref > len(expected) else "holder_without_lock"
                return Problem(
                    rule,
                    f"node {node.id} (tokens {node.start}..{node.start + len(node.tokens)}) has lock count "
                    f"{node.lock_ref}, expected {len(expected)} ({names(expected) or 'nobody'})",
                )
        return None

    @staticmethod
    def _check_slots(view: SchedulerView) -> Problem | None:
        locked = view.now.locked_slots
        needed = {slot: holder.name for holder in view.now.holders for slot in holder.prefix}
        if missing := sorted(needed.keys() - locked):
            who = names(sorted({needed[slot] for slot in missing}))
            return Problem("holder_without_lock", f"{who} relies on {len(missing)} slots that are not locked")
        if versions.transfer_locks(view.scheduler.tree_cache):
            return None  # a copy's node is locked as well, and which slots that is cannot be told
        if extra := sorted(locked - needed.keys()):
            return Problem("lock_without_holder", f"{len(extra)} slots of the tree are locked for nobody: {numbers(extra)}")
        return None

    def _locks(self, view: SchedulerView) -> list[tuple[object, str]]:
        locks = []
        for req in view.requests:
            handle = versions.lock_node(req)
            if handle is not None:
                locks.append((handle, name_of(req.rid)))
        locks += versions.transfer_locks(view.scheduler.tree_cache)
        for slot in view.now.session_slots:
            if slot.lock is not None:
                locks.append((slot.lock, f"session {name_of(slot.session_id)}"))
        return locks + [(handle, "exhauster") for handle in view.context.locked_handles]

    @staticmethod
    def _is_root(view: SchedulerView, node_id: int) -> bool:
        tree = view.scheduler.tree_cache
        core = getattr(tree, "tree_core", None)
        return node_id == (core.root_node.id if core is not None else tree.root_node.id)

    def check_end(self, view: SchedulerView) -> Problem | None:
        if view.unreadable_tree is not None:
            count = len(view.now.locked_slots)
            return Problem("locked_at_end", f"{count} slots are locked after the drain") if count else None
        locked = [node.id for node in view.now.nodes if node.lock_ref]
        if locked:
            return Problem("locked_at_end", f"nodes {names([str(i) for i in locked])} are locked after the drain")
        return None
