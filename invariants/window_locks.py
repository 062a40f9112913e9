"""Every lock on the nodes of a sliding window has a holder, and every holder has its lock."""

from __future__ import annotations

from collections.abc import Iterator

from sr_fuzz.invariants.tree_locks import ComponentLocks

from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.trees import NodeView


class WindowLocks(ComponentLocks):
    """Lock counts of the sliding window are explained exactly.

    Formula: a lock covers the nodes from its own upwards to the one that carries the mark in its receipt, or to the
    root when the receipt has none; a node's count is the number of locks that cover it and were not released.

    Source: ``SWAComponent.acquire_component_lock``, ``release_component_lock``, ``release_window_lock``, and
    ``redistribute_on_node_split``, which moves the mark to the upper half of a node.
    Covers: 0.5.20 and later. Earlier releases did not count evicted nodes, and nothing tells which nodes those were.

    Known false alarms: a request that has decoded a whole window releases its window lock alone (``swa_released``).
    """

    name = "window_locks"
    component = "swa"

    @staticmethod
    def _count(node: NodeView) -> int:
        return node.window_lock

    def _covered(self, node: NodeView, receipt: request_state.LockReceipt | None) -> Iterator[NodeView]:
        if receipt is None or not receipt.window:
            return
        at: NodeView | None = node
        while at is not None:
            yield at
            if receipt.window_end is not None and at.window_end == receipt.window_end:
                return
            at = at.parent
