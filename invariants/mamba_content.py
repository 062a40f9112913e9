"""Recurrent states (Mamba, linear attention): each slot holds the state that it should."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.oracle.function import digest_of
from sr_fuzz.sglang_api.trees import NodeView
from sr_fuzz.view.view import SchedulerView


class MambaContent(Invariant):
    """A slot holds the state after exactly the tokens that it stands for.

    Formula: the state of a tree node has consumed the tokens from the root to the node's end; the state of a KV-holding
    request has consumed its first ``kv_committed_len`` tokens.

    Source: the oracle model keeps the digest and the number of the tokens consumed
    (`sr_fuzz.oracle.models.oracle_hybrid`); SGLang copies one slot to another in ``MambaPool.copy_from``.
    Covers: engines that run the oracle model.

    Known false alarms: a state is copied to a new request, or cleared, by its first forward (``mamba_cow_src_index``,
    ``mamba_needs_clear``): before that it is not checked. If the newest token of a request is not known yet, under
    overlap, only the number is compared.
    """

    name = "mamba_content"
    family = "output"

    def no_subject(self, view: SchedulerView) -> str | None:
        return "the model has no recurrent states" if view.state_allocator is None else None

    def not_covered(self, view: SchedulerView) -> str | None:
        if not hasattr(view.model, "read_states"):
            return "the model is not the oracle"
        return view.unreadable_tree

    def check(self, view: SchedulerView) -> Problem | None:
        expected = [*self._of_nodes(view), *self._of_requests(view)]
        if not expected:
            return None
        digests, consumed = (part.tolist() for part in view.model.read_states(torch.tensor([e[0] for e in expected])))
        for (slot, who, tokens, count), digest, number in zip(expected, digests, consumed, strict=True):
            known = count <= len(tokens)
            if number != count or known and digest != digest_of(tokens[:count]):
                return Problem(
                    "wrong_state",
                    f"slot {slot} of {who} holds a state after {number} tokens"
                    f"{', other ones' if number == count else f', expected {count}'}",
                )
        return None

    def _of_nodes(self, view: SchedulerView) -> Iterator[tuple[int, str, list[int], int]]:
        for node in view.now.nodes:
            for slot in node.state_slots:
                tokens = self._path(node)
                yield slot, f"tree node {node.id}", tokens, len(tokens)

    @staticmethod
    def _of_requests(view: SchedulerView) -> Iterator[tuple[int, str, list[int], int]]:
        for holder in view.now.holders:
            slots = holder.req.state_slots if holder.req is not None else []
            if slots and not holder.req.state_pending:
                yield slots[0], holder.name, holder.tokens, holder.kv.committed

    @staticmethod
    def _path(node: NodeView) -> list[int]:
        parts = [node.tokens]
        while node.parent is not None:
            node = node.parent
            parts.append(node.tokens)
        return [token for part in reversed(parts) for token in part]
