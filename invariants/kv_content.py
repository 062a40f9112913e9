"""The KV cache holds what the page tables say it holds."""

from __future__ import annotations

import torch

from invariants.base import Invariant, Problem, names
from sr_fuzz.view.view import SchedulerView


class KvContent(Invariant):
    """Every slot that the tree or a request's row points at stores the right token at the right position.

    Formula: for each tree node, the tokens read back from its slots are its key and their positions count up from its
    depth; for each KV-holding request, and each streaming session between two turns, those of
    ``row[: min(kv_committed_len, len(prompt) + len(output_ids))]`` are its prompt followed by its output (a session's:
    those of its last turn).

    Source: the oracle model writes identity and position of each token (`sr_fuzz.cpu.models.oracle_model`);
    ``kv_committed_len`` counts tokens whose forward was launched. Under overlap the newest output token is committed
    before it is known, hence the ``min``.
    Covers: engines that run the oracle model, one full-attention pool.
    """

    name = "kv_content"
    family = "output"

    def not_covered(self, view: SchedulerView) -> str | None:
        if not hasattr(view.model, "read_back"):
            return "the model is not the oracle"
        if view.half == "decode":
            return "the fake transfer writes no KV: prompts were computed by nobody"
        return None

    def coarse(self, view: SchedulerView) -> str | None:
        reason = view.unreadable_tree
        return None if reason is None else f"requests' rows only: {reason}"

    def check(self, view: SchedulerView) -> Problem | None:
        slots: list[int] = []
        tokens: list[int] = []
        positions: list[int] = []
        for node in view.now.nodes:
            if node.slots:
                slots += node.slots
                tokens += node.tokens
                positions += range(node.start, node.start + len(node.slots))
        for holder in view.now.holders:
            known = holder.tokens
            length = min(holder.kv.committed, len(known), len(holder.prefix) + len(holder.own))
            row = holder.prefix + holder.own
            slots += row[:length]
            tokens += known[:length]
            positions += range(length)
        if not slots or len(slots) != len(tokens):
            return self._length_problem(view) if slots else None
        # The pool may be on a GPU.
        found_tokens, found_positions = (found.cpu() for found in view.model.read_back(torch.tensor(slots)))
        wrong = (found_tokens != torch.tensor(tokens)) | (found_positions != torch.tensor(positions))
        if not bool(wrong.any()):
            return None
        bad = wrong.nonzero().flatten().tolist()
        detail = [
            f"slot {slots[i]} (page {slots[i] // view.page_size}, {self._user(view, slots[i])}): token "
            f"{int(found_tokens[i])}@{int(found_positions[i])}, expected {tokens[i]}@{positions[i]}"
            for i in bad
        ]
        return Problem("wrong_content", f"{len(bad)} slots hold the wrong token@position: {names(detail, 4)}")

    @staticmethod
    def _user(view: SchedulerView, slot: int) -> str:
        users = [f"tree node {node.id}" for node in view.now.nodes if slot in node.slots]
        users += [holder.name for holder in view.now.holders if slot in holder.prefix or slot in holder.own]
        return " and ".join(users)

    @staticmethod
    def _length_problem(view: SchedulerView) -> Problem | None:
        for node in view.now.nodes:
            if node.slots and len(node.slots) != len(node.tokens):
                return Problem(
                    "key_and_value_differ",
                    f"tree node {node.id} has {len(node.tokens)} tokens but {len(node.slots)} slots",
                )
        return None
