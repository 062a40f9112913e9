"""Tree nodes by native handle: integer ids where the tree hands out ids, node objects before that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sr_fuzz.sglang_api import trees


def iter_node_handles(tree_cache: Any) -> Iterator[Any]:
    """Every node but the root, as the handle that ``inc_lock_ref`` takes; none where the core keeps them to itself."""
    root = None if trees.tree_kind(tree_cache) in ("none", "rust") else tree_cache.root_node
    stack = list(root.children.values()) if root is not None else []
    while stack:
        node = stack.pop()
        yield node_handle(tree_cache, node)
        stack.extend(node.children.values())


def node_handle(tree_cache: Any, node: Any) -> Any:
    return node.id if getattr(tree_cache, "tree_core", None) is not None else node


def resolve_node(tree_cache: Any, handle: Any) -> Any | None:
    """The node object behind a handle; None when it is not in the tree any more (or the tree has no nodes)."""
    if handle is None or not isinstance(handle, int):
        return handle
    core = getattr(tree_cache, "tree_core", None)
    return core._node_arena.get(handle) if core is not None else None


def node_lock_ref(node: Any) -> int:
    """Lock counts of all components together, as SGLang's scripted runtime tells them."""
    data = getattr(node, "component_data", None)
    return sum(part.lock_ref for part in data) if data is not None else node.lock_ref


def get_node_lock_ref(tree_cache: Any, handle: Any) -> int:
    """Of a handle that may be stale: 0 then."""
    node = resolve_node(tree_cache, handle)
    return 0 if node is None else node_lock_ref(node)
