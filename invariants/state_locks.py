"""Every lock on a recurrent state that the tree keeps has a holder, and every holder has its lock."""

from __future__ import annotations

from collections.abc import Iterator

from sr_fuzz.invariants.tree_locks import ComponentLocks

from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.trees import NodeView


class StateLocks(ComponentLocks):
    """Lock counts of recurrent states are explained exactly.

    Formula: a node's count is the number of locks on exactly that node with a receipt that does not leave the state
    out.

    Source: ``MambaComponent.acquire_component_lock`` and ``release_component_lock``, ``skipped_lock_components``.
    Covers: 0.5.20 and later, as `window_locks`.
    """

    name = "state_locks"
    component = "mamba"

    @staticmethod
    def _count(node: NodeView) -> int:
        return node.state_lock

    def _covered(self, node: NodeView, receipt: request_state.LockReceipt | None) -> Iterator[NodeView]:
        if receipt is not None and receipt.state:
            yield node
