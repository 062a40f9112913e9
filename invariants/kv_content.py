"""The KV cache holds what the page tables say it holds."""

from __future__ import annotations

import torch
from sr_fuzz.invariants.base import Invariant, Problem, names

from sr_fuzz.view.view import SchedulerView


class KvContent(Invariant):
    """Every slot that the tree or a request's row points at stores the right token at the right position.

    Formula: for each tree node, the tokens read back from its slots are its key and their positions count up from its
    depth; for each KV-holding request, and each streaming session between two turns, the tokens read back from
    ``row[: min(kv_committed_len, len(prompt) + len(output_ids))]`` are its prompt followed by its output (for a
    session: those of its last turn).

    Source: the oracle model writes identity and position of each token (`sr_fuzz.oracle.models.oracle_model`);
    ``kv_committed_len`` counts tokens of which the forward was launched. Under overlap the newest output token is
    committed before it is known, hence the ``min``.

    With a sliding window beside full attention the same holds in its pool, for each slot that
    ``full_to_swa_index_mapping`` maps; and the last ``sliding_window_size`` positions of a running request are mapped,
    since its next token reads them (``free_swa_out_of_window_slots``, the segment lock of ``SWAComponent``). Where the
    window's pool is the only one, positions that left the window are not checked.

    Covers: engines that run the oracle model.
    """

    name = "kv_content"
    family = "output"

    def not_covered(self, view: SchedulerView) -> str | None:
        if not hasattr(view.model, "read_back"):
            return "the model is not the oracle"
        if view.half == "decode":
            return "the fake transfer writes no KV: no prompt is computed"
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
            length = min(holder.kv.committed, len(known), len(holder.row))
            gone = range(*holder.window_freed) if view.sees_window_only else range(0)
            kept = [at for at in range(length) if at not in gone]
            slots += [holder.row[at] for at in kept]
            tokens += [known[at] for at in kept]
            positions += kept
        if not slots or len(slots) != len(tokens):
            return self._length_problem(view) if slots else None
        problem = self._compare(view, slots, tokens, positions, view.model.read_back, "wrong_content")
        if problem is None and view.has_window_pool:
            problem = self._window_missing(view) or self._check_window(view, slots, tokens, positions)
        return problem

    def _check_window(self, view: SchedulerView, slots: list[int], tokens: list[int], positions: list[int]):
        table = view.now.window_slot
        mapped = [i for i, slot in enumerate(slots) if table[slot]]
        # An oracle that was made for one pool writes nothing to the second.
        if not mapped or not hasattr(view.model, "read_back_window"):
            return None
        some = ([values[i] for i in mapped] for values in (slots, tokens, positions))
        return self._compare(view, *some, view.model.read_back_window, "wrong_window_content")

    @staticmethod
    def _window_missing(view: SchedulerView) -> Problem | None:
        table, running = view.now.window_slot, view.running_requests()
        for holder in view.now.holders:
            if holder.req is None or holder.req not in running or holder.req.is_finished:
                continue
            end = min(holder.kv.committed, len(holder.row))
            first = max(0, end - view.window)
            missing = [at for at in range(first, end) if not table[holder.row[at]]]
            if missing:
                return Problem(
                    "window_missing",
                    f"{holder.name} needs positions {first}..{end} in the window, but {missing} have no slot there "
                    f"(the tree owns what is below {holder.kv.protected})",
                )
        return None

    def _compare(self, view: SchedulerView, slots, tokens, positions, read_back, rule: str) -> Problem | None:
        # The pool may be on a GPU.
        found_tokens, found_positions = (found.cpu() for found in read_back(torch.tensor(slots)))
        wrong = (found_tokens != torch.tensor(tokens)) | (found_positions != torch.tensor(positions))
        if not bool(wrong.any()):
            return None
        bad = wrong.nonzero().flatten().tolist()
        detail = [
            f"slot {slots[i]} (page {slots[i] // view.page_size}, {self._user(view, slots[i])}): token "
            f"{int(found_tokens[i])}@{int(found_positions[i])}, expected {tokens[i]}@{positions[i]}"
            for i in bad
        ]
        return Problem(rule, f"{len(bad)} slots hold the wrong token@position: {names(detail, 4)}")

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
