"""Engine configurations with LoRA adapters: more of them than a batch may hold."""

from __future__ import annotations

from sr_fuzz.script import EngineConfig

# Four adapters and the base model for two slots, or three: who comes last waits for somebody's end.
LORA = {
    "lora-chunk16": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, max_total_tokens=128, max_running_requests=8,
        schedule_conservativeness=0.05,
    ),
    # A decoding request rides along with a chunk of another adapter; whose slot goes is who came first.
    "lora-mixed-paged4": EngineConfig(
        enable_lora=True, max_loras_per_batch=3, lora_eviction_policy="fifo", page_size=4, max_total_tokens=96,
        enable_mixed_chunk=True, schedule_conservativeness=0.03,
    ),
    # Who has waited long lets a running adapter drain, which then takes short requests only.
    "lora-drain-chunk8": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, lora_drain_wait_threshold=10, max_total_tokens=96,
        chunked_prefill_size=8, disable_overlap_schedule=True, schedule_conservativeness=0.05,
    ),
    # An adapter is loaded while others run, and has a slot before any request of its own does.
    "lora-loading-chunk16": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, enable_lora_overlap_loading=True, max_total_tokens=96,
        schedule_conservativeness=0.05,
    ),
    # Who runs changes with every arrival, and with it which adapters do.
    "lora-priority": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, max_total_tokens=96, max_running_requests=4,
        enable_priority_scheduling=True, priority_scheduling_preemption_threshold=0, schedule_conservativeness=0.1,
    ),
    # What an adapter has left on the host comes back for it alone.
    "lora-hicache-chunk8": EngineConfig(
        enable_lora=True, max_loras_per_batch=2, enable_hierarchical_cache=True, hicache_write_policy="write_through",
        max_total_tokens=96, chunked_prefill_size=8, schedule_conservativeness=0.05,
    ),
    # A window's pool runs out first: a chunk is parked, and while it is, its adapter is in no batch.
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
