"""Engine configurations, a table for each subject.

Pools hold 64 to 128 tokens and `schedule_conservativeness` is low nearly everywhere, so that more is admitted than
fits, and running requests are retracted. Booting a configuration costs about a second and its memory, so the default
set stays small; each member is there for a code path that no other member takes.
"""

from __future__ import annotations

from sr_fuzz.script import EngineConfig

DEFAULT = {
    # The common case of a deployment, made small: overlap, chunks, prefix cache.
    "overlap-chunk16": EngineConfig(max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05),
    # Many chunks per prompt in a pool that holds eight chunks: a request is parked between chunks all the time.
    "overlap-chunk8-tiny": EngineConfig(
        max_total_tokens=64, max_running_requests=5, chunked_prefill_size=8, schedule_conservativeness=0.03
    ),
    # Whole prompts, batched by a small token budget instead of a chunk.
    "overlap-nochunk": EngineConfig(
        max_total_tokens=96, max_running_requests=8, chunked_prefill_size=-1, max_prefill_tokens=48,
        schedule_conservativeness=0.05,
    ),  # fmt: skip
    # The synchronous loop: results are known one step earlier than under overlap.
    "normal-chunk8": EngineConfig(
        max_total_tokens=96, chunked_prefill_size=8, disable_overlap_schedule=True, schedule_conservativeness=0.05
    ),
    # Conservative admission: requests wait for room instead of being retracted.
    "normal-nochunk": EngineConfig(
        max_total_tokens=64, chunked_prefill_size=-1, disable_overlap_schedule=True, schedule_conservativeness=0.3
    ),
    # Decoding requests are mixed with a prefill chunk, in both loops.
    "mixed-chunk16": EngineConfig(max_total_tokens=96, enable_mixed_chunk=True, schedule_conservativeness=0.03),
    "normal-mixed-chunk8": EngineConfig(
        max_total_tokens=64, chunked_prefill_size=8, enable_mixed_chunk=True, disable_overlap_schedule=True,
        schedule_conservativeness=0.1,
    ),  # fmt: skip
    # Few rows, so that a request of higher priority must preempt; with threshold 0 any difference is enough.
    "priority-preempt": EngineConfig(
        max_total_tokens=96, max_running_requests=4, enable_priority_scheduling=True,
        priority_scheduling_preemption_threshold=0, schedule_conservativeness=0.1,
    ),  # fmt: skip
    # Low values first; the queue limit makes a new request evict a waiting request of lower priority.
    "priority-low-first": EngineConfig(
        max_total_tokens=64, max_running_requests=3, chunked_prefill_size=8, enable_priority_scheduling=True,
        schedule_low_priority_values_first=True, priority_scheduling_preemption_threshold=1, schedule_policy="lof",
        max_queued_requests=4, disable_overlap_schedule=True, schedule_conservativeness=0.05,
    ),  # fmt: skip
    # Policies that match the waiting queue against the tree, so a waiting request refers to tree nodes.
    "lpm-chunk16": EngineConfig(max_total_tokens=96, schedule_policy="lpm", schedule_conservativeness=0.05),
    "dfs-weight-chunk8": EngineConfig(
        max_total_tokens=96, max_running_requests=8, chunked_prefill_size=8, schedule_policy="dfs-weight",
        schedule_conservativeness=0.1,
    ),  # fmt: skip
    # No prefix cache: every page belongs to exactly one request.
    "noradix-lof-chunk16": EngineConfig(
        max_total_tokens=96, disable_radix_cache=True, schedule_policy="lof", schedule_conservativeness=0.03
    ),
    "noradix-nochunk": EngineConfig(
        max_total_tokens=64, chunked_prefill_size=-1, disable_radix_cache=True, disable_overlap_schedule=True,
        schedule_conservativeness=0.1,
    ),  # fmt: skip
    # Random order of admission, a short queue, and answers that are streamed three tokens at a time.
    "random-queue3": EngineConfig(
        max_total_tokens=96, max_running_requests=5, chunked_prefill_size=8, schedule_policy="random",
        max_queued_requests=3, stream_interval=3, schedule_conservativeness=0.05,
    ),  # fmt: skip
}

# Pages of several tokens: only whole pages are shared, a chunk ends on a page, the last page of a request is its own.
PAGED = {
    "paged4-chunk16": EngineConfig(
        page_size=4, max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05
    ),
    # Sixteen pages: a chunk takes two of them.
    "paged4-chunk8-tiny": EngineConfig(
        page_size=4, max_total_tokens=64, max_running_requests=5, chunked_prefill_size=8, disable_overlap_schedule=True,
        schedule_conservativeness=0.03,
    ),  # fmt: skip
    "paged16-chunk16": EngineConfig(
        page_size=16, max_total_tokens=256, max_running_requests=8, schedule_conservativeness=0.05
    ),
    "paged16-nochunk": EngineConfig(
        page_size=16, max_total_tokens=192, chunked_prefill_size=-1, max_prefill_tokens=64,
        schedule_conservativeness=0.1,
    ),  # fmt: skip
    "paged4-mixed": EngineConfig(
        page_size=4, max_total_tokens=96, enable_mixed_chunk=True, schedule_conservativeness=0.03
    ),
    # Without the tree admission takes another path, which cuts no chunk to pages.
    "paged4-mixed-noradix": EngineConfig(
        page_size=4, max_total_tokens=96, enable_mixed_chunk=True, disable_radix_cache=True,
        schedule_conservativeness=0.05,
    ),  # fmt: skip
    "paged4-priority": EngineConfig(
        page_size=4, max_total_tokens=96, max_running_requests=4, enable_priority_scheduling=True,
        priority_scheduling_preemption_threshold=0, schedule_conservativeness=0.1,
    ),  # fmt: skip
    # One page is larger than most prompts here: nearly nothing is shared, and a request has one page or two.
    "paged64-chunk64": EngineConfig(
        page_size=64, max_total_tokens=512, chunked_prefill_size=64, max_running_requests=8,
        schedule_conservativeness=0.05,
    ),  # fmt: skip
}

# Sliding-window layers of nine tokens, beside full-attention layers or alone: a second pool, smaller than the first,
# whose pages are freed while their request runs, so that prefixes in the tree lose their window part.
SWA = {
    "swa-chunk16": EngineConfig(
        model="swa", swa_full_tokens_ratio=0.5, max_total_tokens=128, max_running_requests=8,
        schedule_conservativeness=0.05,
    ),  # fmt: skip
    # A window pool of 32 tokens: it runs out first, and a chunked request is parked for lack of window slots.
    "swa-chunk8-tiny": EngineConfig(
        model="swa", swa_full_tokens_ratio=0.25, max_total_tokens=128, chunked_prefill_size=8,
        disable_overlap_schedule=True, schedule_conservativeness=0.05,
    ),  # fmt: skip
    "swa-nochunk": EngineConfig(
        model="swa", swa_full_tokens_ratio=0.75, max_total_tokens=96, chunked_prefill_size=-1, max_prefill_tokens=48,
        schedule_conservativeness=0.1,
    ),  # fmt: skip
    "swa-mixed": EngineConfig(
        model="swa", swa_full_tokens_ratio=0.5, max_total_tokens=96, enable_mixed_chunk=True,
        schedule_conservativeness=0.03,
    ),  # fmt: skip
    # The window ends inside a page: two pages and one token.
    "swa-paged4": EngineConfig(
        model="swa", swa_full_tokens_ratio=0.5, page_size=4, max_total_tokens=160, schedule_conservativeness=0.05
    ),
    # Without a tree there are no prefixes to keep, so the window's pages are freed already during a chunked prefill.
    "swa-noradix": EngineConfig(
        model="swa", swa_full_tokens_ratio=0.5, max_total_tokens=96, disable_radix_cache=True,
        schedule_conservativeness=0.05,
    ),  # fmt: skip
    "pure-swa-chunk16": EngineConfig(
        model="pure_swa", max_total_tokens=96, max_running_requests=8, schedule_conservativeness=0.05
    ),
    "pure-swa-noradix": EngineConfig(
        model="pure_swa", max_total_tokens=64, chunked_prefill_size=8, disable_radix_cache=True,
        disable_overlap_schedule=True, schedule_conservativeness=0.05,
    ),  # fmt: skip
}

# One recurrent state per request, in slots that are copied on a prefix hit and run out before the pages do.
MAMBA = {
    # A second state is kept every eight tokens, for the tree; overlap needs it.
    "mamba-chunk16": EngineConfig(
        model="mamba", max_mamba_cache_size=24, mamba_radix_cache_strategy="extra_buffer", mamba_track_interval=8,
        max_total_tokens=128, schedule_conservativeness=0.05,
    ),  # fmt: skip
    # The slot for the second state is allocated when it is needed.
    "mamba-lazy": EngineConfig(
        model="mamba", max_mamba_cache_size=18, mamba_radix_cache_strategy="extra_buffer_lazy", mamba_track_interval=8,
        max_total_tokens=96, schedule_conservativeness=0.05,
    ),  # fmt: skip
    "mamba-paged4": EngineConfig(
        model="mamba", max_mamba_cache_size=24, mamba_radix_cache_strategy="extra_buffer", mamba_track_interval=8,
        page_size=4, max_total_tokens=128, schedule_conservativeness=0.05,
    ),  # fmt: skip
    "mamba-mixed": EngineConfig(
        model="mamba", max_mamba_cache_size=24, mamba_radix_cache_strategy="extra_buffer", mamba_track_interval=8,
        max_total_tokens=96, enable_mixed_chunk=True, schedule_conservativeness=0.05,
    ),  # fmt: skip
    # One state per request, copied into the tree.
    "mamba-nobuffer": EngineConfig(
        model="mamba", max_mamba_cache_size=15, mamba_radix_cache_strategy="no_buffer", disable_overlap_schedule=True,
        max_total_tokens=96, chunked_prefill_size=8, schedule_conservativeness=0.05,
    ),  # fmt: skip
    "mamba-noradix": EngineConfig(
        model="mamba", max_mamba_cache_size=8, disable_radix_cache=True, max_total_tokens=64,
        schedule_conservativeness=0.05,
    ),  # fmt: skip
}

# Streaming sessions keep a row and its KV between two turns, which nothing can evict: rows and pool are scarce.
SESSIONS = {
    "session-chunk16": EngineConfig(
        max_total_tokens=160, max_running_requests=6, schedule_conservativeness=0.05, enable_streaming_session=True
    ),
    "session-normal-chunk8": EngineConfig(
        max_total_tokens=128, max_running_requests=5, chunked_prefill_size=8, disable_overlap_schedule=True,
        schedule_conservativeness=0.05, enable_streaming_session=True,
    ),  # fmt: skip
    "session-nochunk": EngineConfig(
        max_total_tokens=128, max_running_requests=6, chunked_prefill_size=-1, max_prefill_tokens=64,
        schedule_conservativeness=0.1, enable_streaming_session=True,
    ),  # fmt: skip
    # The session keeps the page in which its history ends, and the next turn continues in the middle of that page.
    "session-paged4-chunk16": EngineConfig(
        page_size=4, max_total_tokens=160, max_running_requests=6, schedule_conservativeness=0.05,
        enable_streaming_session=True,
    ),  # fmt: skip
    # Without the tree, a session shares none of its KV.
    "session-noradix-chunk8": EngineConfig(
        max_total_tokens=128, max_running_requests=5, chunked_prefill_size=8, disable_radix_cache=True,
        schedule_conservativeness=0.05, enable_streaming_session=True,
    ),  # fmt: skip
}

# Embeddings: a request consists of prefill only, and the vector of a chunk must not be returned as that of the prompt.
EMBEDDINGS = {
    "embedding-chunk16": EngineConfig(
        max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05, is_embedding=True
    ),
    "embedding-normal-nochunk": EngineConfig(
        max_total_tokens=96, chunked_prefill_size=-1, max_prefill_tokens=48, disable_overlap_schedule=True,
        schedule_conservativeness=0.1, is_embedding=True,
    ),  # fmt: skip
    "embedding-paged4-chunk8": EngineConfig(
        page_size=4, max_total_tokens=96, max_running_requests=5, chunked_prefill_size=8, schedule_policy="lpm",
        schedule_conservativeness=0.05, is_embedding=True,
    ),  # fmt: skip
}

# Two ranks of each kind of parallelism; only the server engine starts several ranks.
PARALLEL = {
    "tensor2": EngineConfig(max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05, tp_size=2),
    "pipeline2": EngineConfig(max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05, pp_size=2),
    "data2": EngineConfig(max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05, dp_size=2),
}

# The policies that no other member uses, and a chunk that is no smaller than any prompt.
SCHEDULES = {
    "routing-key-chunk16": EngineConfig(
        max_total_tokens=96, schedule_policy="routing-key", schedule_conservativeness=0.05
    ),
    "chunk-pool": EngineConfig(max_total_tokens=96, chunked_prefill_size=96, schedule_conservativeness=0.05),
    # Available from 0.5.20 on.
    "hrrn-chunk16": EngineConfig(max_total_tokens=96, schedule_policy="hrrn", schedule_conservativeness=0.05),
}

# Which running request is retracted when memory runs out: the one with the shortest output, or with the lowest
# priority.
RETRACTION = {
    "retract-length": EngineConfig(max_total_tokens=64, schedule_conservativeness=0.03, retraction_policy="length"),
    "retract-priority": EngineConfig(
        max_total_tokens=64, enable_priority_scheduling=True, disable_priority_preemption=True,
        schedule_conservativeness=0.03, retraction_policy="priority",
    ),
    "retract-priority-preempt": EngineConfig(
        max_total_tokens=96, max_running_requests=5, chunked_prefill_size=8, enable_priority_scheduling=True,
        priority_scheduling_preemption_threshold=0, disable_overlap_schedule=True, schedule_conservativeness=0.05,
        retraction_policy="priority",
    ),
}  # fmt: skip

# The unified tree with its Rust core, which is what newer releases run by default.
RUST = {
    "rust-chunk16": EngineConfig(max_total_tokens=96, schedule_conservativeness=0.05, prefix_tree="rust"),
    "rust-paged4-chunk8": EngineConfig(
        page_size=4, max_total_tokens=96, chunked_prefill_size=8, schedule_conservativeness=0.05, prefix_tree="rust",
        disable_overlap_schedule=True,
    ),
    "rust-lpm-priority": EngineConfig(
        max_total_tokens=96, max_running_requests=4, schedule_policy="lpm", schedule_conservativeness=0.1,
        prefix_tree="rust",
    ),
}  # fmt: skip

# The tree that a release does not choose by default: up to 0.5.18 the unified one; later releases have no other.
TREES = {
    "legacy-chunk16": EngineConfig(max_total_tokens=96, schedule_conservativeness=0.05, prefix_tree="legacy"),
    "unified-chunk16": EngineConfig(max_total_tokens=96, schedule_conservativeness=0.05, prefix_tree="unified"),
    "unified-paged4-chunk8": EngineConfig(
        page_size=4, max_total_tokens=96, chunked_prefill_size=8, schedule_conservativeness=0.05, prefix_tree="unified"
    ),
}

# On a virtual clock time-outs may have any length; a running request has waited before.
TIMEOUTS = {
    "timeouts-chunk16": EngineConfig(
        max_total_tokens=96, max_running_requests=5, schedule_conservativeness=0.05, req_waiting_timeout=20,
        req_running_timeout=60,
    ),
    "timeouts-chunk8-normal": EngineConfig(
        max_total_tokens=64, max_running_requests=3, chunked_prefill_size=8, disable_overlap_schedule=True,
        schedule_conservativeness=0.05, req_waiting_timeout=10, req_running_timeout=10,
    ),
    "timeouts-priority": EngineConfig(
        max_total_tokens=96, max_running_requests=3, enable_priority_scheduling=True, max_queued_requests=4,
        priority_scheduling_preemption_threshold=0, schedule_conservativeness=0.1, req_waiting_timeout=30,
    ),
}  # fmt: skip

# One half of a prefill/decode pair without a peer: each transfer succeeds at once.
DISAGGREGATION = {
    "prefill-chunk16": EngineConfig(
        max_total_tokens=96, schedule_conservativeness=0.05, disaggregation_mode="prefill"
    ),
    "prefill-chunk8-normal": EngineConfig(
        max_total_tokens=64, chunked_prefill_size=8, disable_overlap_schedule=True, schedule_conservativeness=0.05,
        disaggregation_mode="prefill",
    ),
    "decode-overlap": EngineConfig(max_total_tokens=128, schedule_conservativeness=0.05, disaggregation_mode="decode"),
    "decode-normal": EngineConfig(
        max_total_tokens=96, disable_overlap_schedule=True, schedule_conservativeness=0.05, disaggregation_mode="decode"
    ),
}  # fmt: skip

# Prefixes are written to the host at once, at their second use, or when they are evicted from the device.
HICACHE = {
    "hicache-through": EngineConfig(
        max_total_tokens=96, schedule_conservativeness=0.05, enable_hierarchical_cache=True,
        hicache_write_policy="write_through",
    ),
    "hicache-selective-chunk8": EngineConfig(
        max_total_tokens=96, chunked_prefill_size=8, schedule_conservativeness=0.05, enable_hierarchical_cache=True,
        hicache_write_policy="write_through_selective", disable_overlap_schedule=True,
    ),
    "hicache-back": EngineConfig(
        max_total_tokens=96, schedule_conservativeness=0.05, enable_hierarchical_cache=True,
        hicache_write_policy="write_back",
    ),
    "hicache-paged4": EngineConfig(
        page_size=4, max_total_tokens=96, schedule_conservativeness=0.05, enable_hierarchical_cache=True,
        hicache_write_policy="write_through",
    ),
}  # fmt: skip
