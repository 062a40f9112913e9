"""Fixes of known bugs in LoRA adapters."""

from __future__ import annotations

from sr_fuzz.faults import fault, triggered, wrapped


@fault("chunk_keeps_its_adapter", stands_for="parked-chunk-loses-its-adapter.md", expected=())
def chunk_keeps_its_adapter():
    """Admission and eviction of adapters count the adapter of a parked chunked request."""
    from sglang.srt.managers.scheduler import Scheduler

    def may(original, scheduler, req, running_loras, *args, **kwargs):
        chunked = scheduler.chunked_req
        if chunked is not None and chunked.lora_id not in running_loras:
            triggered()
            running_loras = running_loras | {chunked.lora_id}
        return original(scheduler, req, running_loras, *args, **kwargs)

    # The name begins with an underscore in older releases.
    name = next(n for n in ("can_schedule_lora_req", "_can_schedule_lora_req") if hasattr(Scheduler, n))
    return wrapped(Scheduler, name, may)
