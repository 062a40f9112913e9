"""Engine configurations with more LoRA adapters than a batch may hold."""

from __future__ import annotations

from sr_fuzz.script import EngineConfig

# Four adapters and the base model for two or three slots: the last request waits until other requests end.
LORA = {
    "lora-chunk16": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, max_total_tokens=128, max_running_requests=8,
        schedule_conservativeness=0.05,
    ),
    # A decoding request is mixed with a chunk of another adapter; the adapter that was loaded first loses its slot.
    "lora-mixed-paged4": EngineConfig(
        enable_lora=True, max_loras_per_batch=3, lora_eviction_policy="fifo", page_size=4, max_total_tokens=96,
        enable_mixed_chunk=True, schedule_conservativeness=0.03,
    ),
    # A request that has waited long makes a running adapter drain; that adapter then takes short requests only.
    "lora-drain-chunk8": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, lora_drain_wait_threshold=10, max_total_tokens=96,
        chunked_prefill_size=8, disable_overlap_schedule=True, schedule_conservativeness=0.05,
    ),
    # An adapter is loaded while others run, and has a slot before any request of its own does.
    "lora-loading-chunk16": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, enable_lora_overlap_loading=True, max_total_tokens=96,
        schedule_conservativeness=0.05,
    ),
    # The running requests change with every arrival, and with them the running adapters.
    "lora-priority": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, max_total_tokens=96, max_running_requests=4,
        enable_priority_scheduling=True, priority_scheduling_preemption_threshold=0, schedule_conservativeness=0.1,
    ),
    # KV that an adapter has left on the host is loaded back for that adapter only.
    "lora-hicache-chunk8": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, enable_hierarchical_cache=True, hicache_write_policy="write_through",
        max_total_tokens=96, chunked_prefill_size=8, schedule_conservativeness=0.05,
    ),
    # The window's pool runs out first: a chunk is parked, and while it is parked, its adapter is in no batch.
    "lora-swa-chunk8": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, model="swa", swa_full_tokens_ratio=0.25, max_total_tokens=128,
        chunked_prefill_size=8, disable_overlap_schedule=True, schedule_conservativeness=0.05,
    ),
    "lora-swa-loading": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, enable_lora_overlap_loading=True, model="swa",
        swa_full_tokens_ratio=0.25, max_total_tokens=128, chunked_prefill_size=8, disable_overlap_schedule=True,
        schedule_conservativeness=0.05,
    ),
}  # fmt: skip
