"""The engine configuration of a script, as immutable data."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SCHEDULE_POLICIES = ("fcfs", "lpm", "dfs-weight", "lof", "random", "routing-key", "hrrn")


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The engine settings that a script depends on, with the names of SGLang's ``ServerArgs`` where they exist.

    Pools are small on purpose: memory pressure finds more bugs than a variety of operations.
    """

    page_size: Annotated[int, Meta(ge=1, le=64)] = 1
    max_total_tokens: Annotated[int, Meta(ge=8, le=65536)] = 128
    """Size of the KV pool in tokens; a multiple of ``page_size``."""
    max_running_requests: Annotated[int, Meta(ge=1, le=256)] = 6
    """Number of request rows."""
    chunked_prefill_size: Annotated[int, Meta(ge=-1, le=8192)] = 16
    """Tokens that a prefill batch may have; -1 turns chunking off."""
    max_prefill_tokens: Annotated[int, Meta(ge=1, le=65536)] = 16384
    disable_overlap_schedule: bool = False
    enable_mixed_chunk: bool = False
    disable_radix_cache: bool = False
    schedule_policy: Literal["fcfs", "lpm", "dfs-weight", "lof", "random", "routing-key", "hrrn"] = "fcfs"
    schedule_conservativeness: Annotated[float, Meta(ge=0.01, le=10.0)] = 1.0
    """Low values admit more requests than fit, so that running requests must be retracted."""
    enable_priority_scheduling: bool = False
    disable_priority_preemption: bool = False
    schedule_low_priority_values_first: bool = False
    priority_scheduling_preemption_threshold: Annotated[int, Meta(ge=0, le=1000)] = 10
    max_queued_requests: Annotated[int, Meta(ge=1, le=1024)] | None = None
    stream_interval: Annotated[int, Meta(ge=1, le=64)] = 1
    tp_size: Annotated[int, Meta(ge=1, le=8)] = 1
    pp_size: Annotated[int, Meta(ge=1, le=8)] = 1
    dp_size: Annotated[int, Meta(ge=1, le=8)] = 1
    """Number of tensor, pipeline and data parallel ranks; any value above 1 needs the server engine."""
    retraction_policy: Literal["length", "priority"] | None = None
    """Which requests are retracted first when memory runs out in decode; None: the release's default, ``length``."""
    prefix_tree: Literal["legacy", "unified", "rust"] | None = None
    """The prefix tree: ``RadixCache``, or the unified tree with its Python or its Rust core. None: the release's own
    choice, with the Python core where there are several."""
    req_waiting_timeout: Annotated[float, Meta(gt=0, le=3600)] | None = None
    req_running_timeout: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """Seconds, on the virtual clock that `AdvanceClock` advances, after which a waiting or running request is
    aborted."""
    enable_hierarchical_cache: bool = False
    """Prefixes that are evicted from the device are kept in host memory, and loaded back from there."""
    hicache_write_policy: Literal["write_back", "write_through", "write_through_selective"] | None = None
    speculative_algorithm: Literal["NGRAM"] | None = None
    disaggregation_mode: Literal["null", "prefill", "decode"] = "null"
    """One half of a disaggregated pair, with the fake transfer backend: there is no peer."""
    model: Literal["dense", "swa", "pure_swa", "mamba"] = "dense"
    """The kind of KV cache of the oracle model: one pool for all layers; a second pool for sliding window layers;
    sliding window layers only; attention besides a layer with a recurrent state (Mamba, linear attention)."""
    swa_full_tokens_ratio: Annotated[float, Meta(ge=0.05, le=1.0)] | None = None
    """Size of the sliding window pool as a fraction of ``max_total_tokens``; None leaves it to SGLang."""
    max_mamba_cache_size: Annotated[int, Meta(ge=2, le=1024)] | None = None
    """Number of slots for recurrent states; None leaves it to SGLang."""
    mamba_radix_cache_strategy: Literal["no_buffer", "extra_buffer", "extra_buffer_lazy"] | None = None
    """Where a state that the prefix tree will keep is written while its request continues."""
    mamba_track_interval: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Decode steps between two kept states, with an extra buffer."""
    enable_streaming_session: bool = False
    is_embedding: bool = False
    """Every request asks for the embedding of its prompt; its fields about output are ignored."""
    enable_lora: bool = False
    """The adapters of `sr_fuzz.script.adapters` are loaded, and a request may run with one of them."""
    max_loras_per_batch: Annotated[int, Meta(ge=1, le=16)] | None = None
    """Number of adapters that a batch may have, including the base model, and of slots in the pool for their
    weights."""
    lora_eviction_policy: Literal["lru", "fifo"] | None = None
    """Which adapter is evicted when an adapter without a slot is needed."""
    lora_drain_wait_threshold: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """Seconds, on the virtual clock, after which a request that waits for its adapter causes a running one to be
    drained."""
    enable_lora_overlap_loading: bool = False
    """An adapter is loaded while other requests run; its own requests wait until it is loaded."""

    @property
    def timeouts(self) -> tuple[float, ...]:
        """The seconds after which time-dependent events happen: time-outs, and the draining of an adapter."""
        times = (self.req_waiting_timeout, self.req_running_timeout, self.lora_drain_wait_threshold)
        return tuple(time for time in times if time is not None)

    @property
    def world_size(self) -> int:
        """Number of scheduler processes."""
        return self.tp_size * self.pp_size * self.dp_size
