"""Reads prefix trees: every node with its place, tokens, slots and locks.

It covers the unified tree with the Python core (nodes have per-component data; component 0 is full attention), the
legacy ``RadixCache``, and caches without a tree, which have no nodes. The Rust core does not expose its nodes, which
`readable` reports; only `tree_slots` and `locked_slots` can be read from it. Sources:
``mem_cache/unified_cache/unified_tree_core.py``, ``mem_cache/radix_cache.py``, ``rust_tree_core/adapter.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class NodeView:
    """One tree node; the root is left out."""

    id: int
    parent: NodeView | None
    start: int
    """Position of its first token, from the root."""
    tokens: list[int]
    slots: list[int]
    """KV slots of its tokens; empty when the KV is not on the device."""
    lock_ref: int
    window_slots: list[int] | None = None
    """Slots of its tokens in the sliding window's pool; None when they were freed, or if there is no such pool."""
    window_lock: int = 0
    window_end: Any = None
    """The mark at which some locks on the window end; see `sr_fuzz.sglang_api.request_state.LockReceipt`."""
    state_slots: list[int] = field(default_factory=list)
    """Slot of the recurrent state after its last token; at most one."""
    state_lock: int = 0


def tree_kind(tree_cache: Any) -> str:
    """Return ``legacy``, ``unified`` (the Python core), ``rust``, or ``none``."""
    if getattr(tree_cache, "disable", False):
        return "none"  # the unified tree has its core even then
    core = getattr(tree_cache, "tree_core", None)
    if core is not None:
        return "rust" if type(core).__name__.startswith("Rust") else "unified"
    if not hasattr(tree_cache, "root_node"):
        return "none"
    return "unified" if type(tree_cache).__name__.startswith("Unified") else "legacy"


def readable(tree_cache: Any) -> str | None:
    """Return why the nodes of the tree cannot be read; None when they can."""
    if is_rust(tree_cache):
        return "the Rust core keeps its nodes to itself"
    return None


def is_rust(tree_cache: Any) -> bool:
    """Whether it is the unified tree with the Rust core, from which only whole sets of slots can be read."""
    return tree_kind(tree_cache) == "rust"


def tree_slots(tree_cache: Any) -> list[int]:
    """Return the device slots of all nodes of a Rust core, in any order; a slot of two nodes appears twice."""
    return tree_cache.tree_core.all_values_flatten().tolist()


def locked_slots(tree_cache: Any) -> set[int]:
    """Return those slots whose nodes are locked."""
    unlocked = tree_cache.tree_core.walk_for_kv_canary(True, False).slot_indices
    return set(tree_slots(tree_cache)) - set(map(int, unlocked))


def read_tree(tree_cache: Any) -> list[NodeView]:
    """Return all nodes except the root, parents before children."""
    root = _root(tree_cache)
    if root is None:
        return []
    nodes: list[NodeView] = []
    stack: list[tuple[Any, NodeView | None]] = [(child, None) for child in root.children.values()]
    while stack:
        node, parent = stack.pop()
        view = _read_node(node, parent)
        nodes.append(view)
        if node.children:
            stack += [(child, view) for child in node.children.values()]
    return nodes


def _root(tree_cache: Any) -> Any | None:
    if getattr(tree_cache, "disable", False) or is_rust(tree_cache):
        return None
    core = getattr(tree_cache, "tree_core", None)
    if core is not None:
        return getattr(core, "root_node", None)
    return getattr(tree_cache, "root_node", None)


def _read_node(node: Any, parent: NodeView | None) -> NodeView:
    data = getattr(node, "component_data", None)
    full = data[0] if data is not None else node
    value = full.value
    return NodeView(
        id=node.id,
        parent=parent,
        start=0 if parent is None else parent.start + len(parent.tokens),
        tokens=list(node.key.raw_token_ids() if hasattr(node.key, "raw_token_ids") else node.key.token_ids),
        slots=value.tolist() if value is not None else [],
        lock_ref=full.lock_ref,
        **_other_components(data),
    )


# Indices in a node's component data; index 0 is full attention.
_WINDOW, _STATE = 1, 2


def _other_components(data: Any) -> dict[str, Any]:
    if data is None or len(data) <= _STATE:
        return {}
    window, state = data[_WINDOW], data[_STATE]
    return {
        "window_slots": window.value.tolist() if window.value is not None else None,
        "window_lock": window.lock_ref,
        "window_end": window.metadata.get("uuid"),
        "state_slots": state.value.tolist() if state.value is not None else [],
        "state_lock": state.lock_ref,
    }


def components(tree_cache: Any) -> set[str]:
    """Return the components of a node: ``full``, in a hybrid tree also ``swa`` or ``mamba``; empty without a tree."""
    if _root(tree_cache) is None:
        return set()
    return {str(component) for component in getattr(tree_cache, "tree_components", ("full",))}


def root_node_id(tree_cache: Any) -> int:
    """Return the id of the root of a tree whose nodes can be read."""
    core = getattr(tree_cache, "tree_core", None)
    return core.root_node.id if core is not None else tree_cache.root_node.id
