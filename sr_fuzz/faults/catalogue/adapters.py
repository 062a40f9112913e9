"""Faults of LoRA adapters: prefixes, slots of the pool, and which requests may share a batch."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped


@fault(
    "prefix_without_adapter", stands_for="KV of one adapter reused by another", expected=("lora",), sets=("lora",)
)
def prefix_without_adapter():
    """The prefix that a request leaves in the prefix tree is matched by requests of any adapter."""
    from sglang.srt.managers.schedule_batch import Req

    def make(original, req, *args, **kwargs):
        original(req, *args, **kwargs)
        if req.lora_id is not None:
            triggered()
            req.extra_key = req.extra_key.removesuffix(req.lora_id) or None

    return wrapped(Req, "__init__", make)


@fault(
    "one_adapter_too_many", stands_for="a batch of more adapters than the pool has slots",
    expected=("exception", "lora"), sets=("lora",),
)  # fmt: skip
def one_adapter_too_many():
    """A request is admitted although the running requests' adapters occupy all slots."""
    from sglang.srt.managers.scheduler import Scheduler

    def may(original, scheduler, req, running_loras, *args, **kwargs):
        allowed = original(scheduler, req, running_loras, *args, **kwargs)
        if not allowed and len(running_loras) >= scheduler.max_loras_per_batch:
            triggered()
            return True
        return allowed

    # The name begins with an underscore in older releases.
    name = next(n for n in ("can_schedule_lora_req", "_can_schedule_lora_req") if hasattr(Scheduler, n))
    return wrapped(Scheduler, name, may)


@fault(
    "running_adapter_evicted", stands_for="an adapter evicted while its requests run",
    expected=("exception", "lora"), sets=("lora-loading-chunk16",),
)  # fmt: skip
def running_adapter_evicted():
    """An adapter that is loaded beside a forward takes the slot of an adapter in use."""
    from sglang.srt.lora.lora_manager import LoRAManager

    def fetch(original, manager, new_loras, running_loras=frozenset()):
        if running_loras - {None}:
            triggered()
        return original(manager, new_loras, set())

    return wrapped(LoRAManager, "fetch_new_loras", fetch)


@fault(
    "slot_not_written", stands_for="an adapter with another's weights", expected=("lora",), sets=("lora",)
)
def slot_not_written():
    """An adapter that was evicted and is used again is treated as if it were still in its slot."""
    from sglang.srt.lora.mem_pool import LoRAMemoryPool

    seen: set[str] = set()

    def load(original, pool, uid, buffer_id, *args, **kwargs):
        if uid in seen:
            return triggered()
        seen.update([uid] if uid is not None else [])
        return original(pool, uid, buffer_id, *args, **kwargs)

    return wrapped(LoRAMemoryPool, "load_lora_weight_to_buffer", load)


@fault(
    "adapter_of_neighbour", stands_for="rows of a batch with each other's adapters", expected=("lora",),
    sets=("lora-mixed-paged4",),
)  # fmt: skip
def adapter_of_neighbour():
    """A request that decodes in the same batch as a chunk runs with the chunk's adapter."""
    from sglang.srt.lora.lora_manager import LoRAManager

    def prepare(original, manager, forward_batch, *args, **kwargs):
        adapters = list(forward_batch.lora_ids)
        if forward_batch.forward_mode.is_mixed() and len(set(adapters)) > 1:
            triggered()
            forward_batch.lora_ids = adapters[:1] * len(adapters)
        original(manager, forward_batch, *args, **kwargs)
        forward_batch.lora_ids = adapters

    return wrapped(LoRAManager, "prepare_lora_batch", prepare)


@fault(
    "drains_for_ever", stands_for="an adapter that is kept out for good", expected=("liveness",),
    sets=("lora-drain-chunk8",),
)  # fmt: skip
def drains_for_ever():
    """An adapter that was drained in favour of another one is not admitted again."""
    from sglang.srt.lora.lora_drainer import LoRADrainer

    def finish(original, drainer, *args, **kwargs):
        if any(stats.is_draining_for is not None for stats in drainer.adapter_to_stats.values()):
            triggered()

    return wrapped(LoRADrainer, "_update_fully_drained_loras", finish)
