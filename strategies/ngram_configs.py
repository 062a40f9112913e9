"""Engine configurations with n-gram speculation: several tokens per step, and pages reserved ahead for drafts.

Each request reserves room for two trees of drafts beyond its tokens, so pools that are ample without speculation are
tight.
"""

from __future__ import annotations

from sr_fuzz.script import EngineConfig

NGRAM = {
    # The common case of a deployment: overlap, chunks, prefix cache. Drafts of a step are chosen before the previous
    # step's result is known.
    "ngram-chunk16": EngineConfig(
        max_total_tokens=128, max_running_requests=8, schedule_conservativeness=0.05, speculative_algorithm="NGRAM"
    ),
    # Each step's result is processed before the next step's drafts are chosen.
    "ngram-normal-chunk8": EngineConfig(
        max_total_tokens=96, max_running_requests=5, chunked_prefill_size=8, disable_overlap_schedule=True,
        schedule_conservativeness=0.03, speculative_algorithm="NGRAM",
    ),
    # Pages of several tokens: the reserved room ends on a page, and drafts are a chain instead of a tree.
    "ngram-paged4-chunk16": EngineConfig(
        page_size=4, max_total_tokens=128, max_running_requests=6, schedule_conservativeness=0.05,
        speculative_algorithm="NGRAM",
    ),
    # No prefix cache: the KV of accepted and of rejected drafts goes back to the pool at once.
    "ngram-noradix-nochunk": EngineConfig(
        max_total_tokens=96, chunked_prefill_size=-1, max_prefill_tokens=48, disable_radix_cache=True,
        schedule_conservativeness=0.05, speculative_algorithm="NGRAM",
    ),
    # Requests are preempted while their drafts are being verified.
    "ngram-priority": EngineConfig(
        max_total_tokens=96, max_running_requests=4, enable_priority_scheduling=True,
        priority_scheduling_preemption_threshold=0, schedule_conservativeness=0.1, speculative_algorithm="NGRAM",
    ),
}  # fmt: skip
