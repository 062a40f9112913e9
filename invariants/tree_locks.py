"""Every lock on the prefix tree has a holder, and every holder has its lock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sr_fuzz.invariants.base import Invariant, Problem, names, numbers

from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.trees import NodeView
from sr_fuzz.view.view import SchedulerView, name_of


class TreeLocks(Invariant):
    """Lock counts are explained exactly.

    Formula: a node's lock count is the number of locks (of KV-holding requests, of streaming sessions, of copies
    between device and host, and of the exhauster) on nodes of its subtree; the root is left out, because it is always
    locked. After the drain, with nothing held, all counts are zero.

    Source: ``inc_lock_ref`` / ``dec_lock_ref`` (they walk from the node to the root), ``Req.lock`` in 0.5.22 and later,
    ``Req.last_node`` before; see `sr_fuzz.sglang_api.request_state.lock_node`.
    Covers: the full-attention component of trees that can be walked. With a Rust core, only which slots are locked at
    all: exactly the prefixes of the KV-holding requests (``walk_for_kv_canary`` of the core leaves locked nodes out).

    Known false alarms: up to 0.5.21 a waiting request may have a ``last_node`` without holding a lock, so only
    KV-holding requests count there. A later turn of a streaming session holds no lock; its session does.
    """

    name = "tree_locks"
    family = "memory"

    def no_subject(self, view: SchedulerView) -> str | None:
        return None if view.has_tree else "there is no prefix tree"

    def coarse(self, view: SchedulerView) -> str | None:
        reason = view.unreadable_tree
        return None if reason is None else f"which slots are locked, not how often: {reason}"

    def check(self, view: SchedulerView) -> Problem | None:
        if view.unreadable_tree is not None:
            return self._check_slots(view)
        nodes = {node.id: node for node in view.now.nodes}
        holders: dict[int, list[str]] = {}
        for handle, who, receipt in self._locks(view):
            node_id = handle if isinstance(handle, int) else handle.id
            node = nodes.get(node_id)
            if node is None:
                if self._is_root(view, node_id):
                    continue
                return Problem("locked_node_gone", f"{who} holds a lock on node {node_id}, which is not in the tree")
            for covered in self._covered(node, receipt):
                holders.setdefault(covered.id, []).append(who)
        for node in view.now.nodes:
            expected = holders.get(node.id, [])
            if self._count(node) != len(expected):
                rule = "lock_without_holder" if self._count(node) > len(expected) else "holder_without_lock"
                return Problem(
                    rule,
                    f"node {node.id} (tokens {node.start}..{node.start + len(node.tokens)}) has lock count "
                    f"{self._count(node)}, expected {len(expected)} ({names(expected) or 'no holder'})",
                )
        return None

    @staticmethod
    def _count(node: NodeView) -> int:
        return node.lock_ref

    def _covered(self, node: NodeView, receipt: request_state.LockReceipt | None) -> Iterator[NodeView]:
        """The nodes that a lock on ``node`` covers."""
        at: NodeView | None = node
        while at is not None:
            yield at
            at = at.parent

    @staticmethod
    def _check_slots(view: SchedulerView) -> Problem | None:
        locked = view.now.locked_slots
        needed = {slot: holder.name for holder in view.now.holders for slot in holder.prefix}
        if missing := sorted(needed.keys() - locked):
            who = names(sorted({needed[slot] for slot in missing}))
            return Problem("holder_without_lock", f"{who} relies on {len(missing)} slots that are not locked")
        if view.transfer_locks:
            return None  # the node of a copy is locked as well, and its slots are not known
        if extra := sorted(locked - needed.keys()):
            told = f"{len(extra)} slots of the tree are locked without a holder: {numbers(extra)}"
            return Problem("lock_without_holder", told)
        return None

    def _locks(self, view: SchedulerView) -> list[tuple[Any, str, request_state.LockReceipt | None]]:
        """Node, holder and receipt of each lock. Only a component's check needs the receipt."""
        locks: list[tuple[Any, str, request_state.LockReceipt | None]] = []
        for req in view.requests:
            handle = req.lock_node
            if handle is not None:
                receipt = req.lock_receipt if request_state.has_lock_receipts() else None
                locks.append((handle, name_of(req.rid), receipt))
        locks += [(handle, what, None) for handle, what in view.transfer_locks]
        for slot in view.now.session_slots:
            if slot.lock is not None:
                locks.append((slot.lock, f"session {name_of(slot.session_id)}", None))
        for handle, receipt in view.context.tree_locks:
            parts = request_state.receipt_parts(receipt) if request_state.has_lock_receipts() else None
            locks.append((handle, "exhauster", parts))
        return locks

    @staticmethod
    def _is_root(view: SchedulerView, node_id: int) -> bool:
        return node_id == view.root_node_id

    def check_end(self, view: SchedulerView) -> Problem | None:
        if view.unanswered():
            return None  # who is not answered may have a lock; that is for `Liveness` to say
        if view.unreadable_tree is not None:
            count = len(view.now.locked_slots)
            return Problem("locked_at_end", f"{count} slots are locked after the drain") if count else None
        locked = [node.id for node in view.now.nodes if self._count(node)]
        if locked:
            return Problem("locked_at_end", f"nodes {names([str(i) for i in locked])} are locked after the drain")
        return None


class ComponentLocks(TreeLocks):
    """Base class of the same check for another component of the tree."""

    component: str

    def no_subject(self, view: SchedulerView) -> str | None:
        if view.unreadable_tree is None and self.component not in view.tree_components:
            return f"the tree has no {self.component} component"
        return None

    def not_covered(self, view: SchedulerView) -> str | None:
        if view.unreadable_tree is not None:
            return view.unreadable_tree
        if not request_state.has_lock_receipts():
            return "this SGLang passes over evicted nodes when it locks, and a lock does not say which"
        if view.facts.hierarchical_cache_asked:
            return "the locks of copies between device and host are not told apart by component"
        return None
