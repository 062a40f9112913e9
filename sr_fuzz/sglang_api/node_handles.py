"""Tree nodes by native handle: integer ids where the tree uses ids, node objects on older releases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sr_fuzz.sglang_api import trees


def iter_node_handles(tree_cache: Any) -> Iterator[Any]:
    """Yield the handle of each node except the root, as ``inc_lock_ref`` takes it; none if the core hides its nodes."""
    root = None if trees.tree_kind(tree_cache) in ("none", "rust") else tree_cache.root_node
    stack = list(root.children.values()) if root is not None else []
    while stack:
        node = stack.pop()
        yield node_handle(tree_cache, node)
        stack.extend(node.children.values())


def node_handle(tree_cache: Any, node: Any) -> Any:
    return node.id if getattr(tree_cache, "tree_core", None) is not None else node


def resolve_node(tree_cache: Any, handle: Any) -> Any | None:
    """Return the node object of a handle; None when it is no longer in the tree (or the tree has no nodes)."""
    if handle is None or not isinstance(handle, int):
        return handle
    core = getattr(tree_cache, "tree_core", None)
    return core._node_arena.get(handle) if core is not None else None


def node_lock_ref(node: Any) -> int:
    """Return the sum of the lock counts of all components, as SGLang's scripted runtime does."""
    data = getattr(node, "component_data", None)
    return sum(part.lock_ref for part in data) if data is not None else node.lock_ref


def get_node_lock_ref(tree_cache: Any, handle: Any) -> int:
    """Return the lock count of a handle; 0 for a stale handle."""
    node = resolve_node(tree_cache, handle)
    return 0 if node is None else node_lock_ref(node)
