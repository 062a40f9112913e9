"""Adapters: which ones share a batch, which weights are in the pool, and which adapter computed the KV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from sr_fuzz.invariants.base import Invariant, Problem, names

from sr_fuzz.oracle.adapter_weights import number_in_pool
from sr_fuzz.script.adapters import ADAPTERS, adapter_number
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of


class Lora(Invariant):
    """A batch has no more adapters than the pool has slots, each is in its slot, and only it uses the KV it computed.

    Formula, with the base model as one more adapter, for which SGLang takes a slot too:

    * a launched batch has at most ``max_loras_per_batch`` adapters;
    * adapters and slots of the pool are assigned one to one; after a launch each adapter of the batch has a slot, and
      with overlap loading each adapter of the running batch has one at any time, because nothing else would load it
      again;
    * the weights in an adapter's slot are its own: an input that begins with 1 gives its number;
    * each position of a request's row below ``min(kv_committed_len, len(prompt) + len(output_ids))`` was computed with
      the request's adapter, whichever request computed it: a prefix in the tree is of use to one adapter;
    * all KV of a tree node was computed with one adapter, the same as that of its parent.

    Source: ``Scheduler.can_schedule_lora_req``, ``LoRAManager.fetch_new_loras`` and ``prepare_lora_batch``
    (``lora/lora_manager.py``), ``LoRAMemoryPool.prepare_lora_batch`` (``lora/mem_pool.py``); ``Req.extra_key`` in
    ``managers/schedule_batch.py``, which keys prefixes by adapter. ``ForwardBatch.init_new`` fetches the adapters of a
    batch, unless they are loaded beside the model, by ``LoRAOverlapLoader``.
    Covers: engines that run the oracle model with adapters.

    Known false alarms: without overlap loading an adapter of the running batch may lose its slot to an adapter of a
    prefill, and get one again before it decodes. A slot to which a copy is still under way is not checked.
    """

    name = "lora"
    family = "output"

    def no_subject(self, view: SchedulerView) -> str | None:
        return "no adapters are served" if view.lora is None else None

    def not_covered(self, view: SchedulerView) -> str | None:
        return None if hasattr(view.model, "read_adapters") else "the model is not the oracle with adapters"

    def coarse(self, view: SchedulerView) -> str | None:
        reason = view.unreadable_tree
        return None if reason is None else f"no look at what tree nodes hold: {reason}"

    def check(self, view: SchedulerView) -> Problem | None:
        return self._batches(view) or self._slots(view) or self._rows(view) or self._nodes(view)

    def _batches(self, view: SchedulerView) -> Problem | None:
        most = view.lora.max_loras_per_batch
        for batch in view.launched:
            adapters = {row.req.lora_id for row in batch.rows}
            if len(adapters) > most:
                return Problem(
                    "too_many_adapters",
                    f"a batch of {len(batch.rows)} requests has the adapters {_shown(adapters)}, {most} at most fit "
                    "into the pool",
                )
        return None

    def _slots(self, view: SchedulerView) -> Problem | None:
        pool = view.lora.memory_pool
        by_slot = {slot: uid for slot, uid in enumerate(pool.buffer_id_to_uid) if uid is None or isinstance(uid, str)}
        by_uid = dict(pool.uid_to_buffer_id)
        if {uid: slot for slot, uid in by_slot.items()} != by_uid or len(by_slot) != len(by_uid):
            return Problem("slots_disagree", f"slots hold {by_slot}, but adapters are said to be in {by_uid}")
        missing = [(req, why) for req, why in self._needed(view) if req.lora_id not in by_uid]
        if missing:
            req, why = missing[0]
            return Problem(
                "not_in_pool",
                f"{name_of(req.rid)} {why} with the adapter {_shown([req.lora_id])}, which is not in the pool: "
                f"there are {_shown(by_uid)}",
            )
        under_way = getattr(view.lora, "pending_lora_load_events", {})
        for uid, slot in by_uid.items():
            if uid is None or uid in under_way:
                continue
            found = number_in_pool(view.lora, uid, slot)
            if found != adapter_number(uid):
                return Problem("wrong_weights", f"slot {slot} is that of {uid}, but holds those of {_of_number(found)}")
        return None

    @staticmethod
    def _needed(view: SchedulerView) -> Iterator[tuple[Request, str]]:
        """Requests that need their adapter in the pool now, each with the reason."""
        if view.launched:
            yield from ((row.req, "was in the last batch") for row in view.launched[-1].rows)
        if view.facts.lora_overlap_loading:
            for req in view.running:
                if not req.is_finished:
                    yield req, "runs"

    def _rows(self, view: SchedulerView) -> Problem | None:
        for holder in view.now.holders:
            length = min(holder.kv.committed, len(holder.tokens), len(holder.row))
            if holder.req is None or not length:
                continue
            wanted = adapter_number(holder.req.lora_id)
            found = view.model.read_adapters(torch.tensor(holder.row[:length])).tolist()
            wrong = [at for at, number in enumerate(found) if number != wanted]
            if wrong:
                return Problem(
                    "kv_of_another_adapter",
                    f"{holder.name} runs with {_of_number(wanted)}, but the KV at {names([str(at) for at in wrong])} "
                    f"was computed with {_of_number(found[wrong[0]])} (the tree owns what is below "
                    f"{holder.kv.protected})",
                )
        return None

    def _nodes(self, view: SchedulerView) -> Problem | None:
        of_node: dict[int, int] = {}
        for node in view.now.nodes:
            if not node.slots:
                continue
            numbers = set(view.model.read_adapters(torch.tensor(node.slots)).tolist())
            if node.parent is not None and node.parent.id in of_node:
                numbers.add(of_node[node.parent.id])
            if len(numbers) > 1:
                mixed = names([_of_number(number) for number in sorted(numbers)])
                return Problem("node_of_two_adapters", f"tree node {node.id} holds, or goes on from, KV of {mixed}")
            of_node[node.id] = numbers.pop()
        return None


def _shown(adapters: Iterable[str | None]) -> str:
    return names(sorted(adapter or "base model" for adapter in adapters))


def _of_number(number: float) -> str:
    known = {float(adapter_number(name)): name for name in ADAPTERS} | {0.0: "the base model"}
    return known.get(float(number), f"no adapter's ({number:g})")
