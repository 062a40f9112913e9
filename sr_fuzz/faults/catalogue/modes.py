"""Faults of modes that need a special configuration: time-outs, the hierarchical cache, disaggregation."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from sr_fuzz.faults import fault, triggered, wrapped


@fault(
    "timed_out_keeps_all", stands_for="a time-out that forgets to free", expected=("sglang_idle_check", "kv_pages"),
    sets=("timeouts",),
)  # fmt: skip
def timed_out_keeps_all():
    """A running request that is aborted by its time-out frees neither its pages nor its row."""
    from sglang.srt.managers.scheduler_components import batch_result_processor

    def release(original, req, tree_cache, *args, **kwargs):
        if req.finished() and "timeout" in str(req.finished_reason.to_json().get("message")):
            return triggered()
        return original(req, tree_cache, *args, **kwargs)

    return wrapped(batch_result_processor, "release_kv_cache", release)


@fault(
    "loaded_in_wrong_order", stands_for="KV that comes back from the host for other tokens",
    expected=("kv_content", "oracle_output"), sets=("hicache",),
)  # fmt: skip
@contextmanager
def loaded_in_wrong_order():
    """The KV that is copied back from the host is shifted by one token."""
    from sglang.srt.managers.cache_controller import HiCacheController
    from sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller import HybridCacheController

    def load(original, controller, host_indices, *args, **kwargs):
        triggered()
        return original(controller, torch.roll(host_indices, 1), *args, **kwargs)

    # The legacy tree uses the first class, the unified tree the second.
    with wrapped(HiCacheController, "load", load), wrapped(HybridCacheController, "load", load):
        yield


@fault(
    "lost_in_transfer", stands_for="requests lost between two queues of a disaggregated half",
    expected=("nobody_lost",), sets=("disaggregation",),
)  # fmt: skip
def lost_in_transfer():
    """If the KV of two prompts is sent after one prefill, the second prompt is lost."""
    from sglang.srt.managers.scheduler import Scheduler

    def process(original, scheduler, *args, **kwargs):
        original(scheduler, *args, **kwargs)
        if len(scheduler.disagg_prefill_inflight_queue) > 1:
            triggered()
            scheduler.disagg_prefill_inflight_queue.pop()

    return wrapped(Scheduler, "process_batch_result_disagg_prefill", process)
