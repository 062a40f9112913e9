"""How often each piece is drawn, by what a configuration *is*: its fields, not its name, so that it works for any.

Each row is a feature of the engine. A configuration has all features whose test holds; their factors multiply, and
where two features set how often a kind of action is on, the higher value counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from sr_fuzz.strategies.actions import SWITCH_WEIGHTS

from sr_fuzz.script import EngineConfig

PROFILE_WEIGHTS = {"idle": 2, "steady": 3, "burst": 6, "saturated": 2, "oversubscribed": 3}
"""How many of sixteen scripts have each profile, unless a feature says otherwise: most need more than the pool
holds."""


@dataclass(frozen=True)
class Feature:
    """What is drawn more often, or less often, on configurations of one kind."""

    name: str
    why: str
    has: Callable[[EngineConfig], bool]
    motifs: Mapping[str, int] = field(default_factory=dict)
    """Factors of the motifs' own weights."""
    profiles: Mapping[str, int] = field(default_factory=dict)
    """Factors of `PROFILE_WEIGHTS`."""
    switches: Mapping[str, int] = field(default_factory=dict)
    """Values that replace those of `SWITCH_WEIGHTS`."""


FEATURES = (
    Feature(
        "overlap",
        "a result is in flight in every step, when a pause or an abort comes",
        lambda c: not c.disable_overlap_schedule,
        motifs={"long_pause": 3},
    ),
    Feature(
        "paged",
        "only whole pages are shared and freed, so lengths around a page matter",
        lambda c: c.page_size > 1,
        motifs={"diverge": 2, "next_turn": 2, "near_capacity": 2},
    ),
    Feature(
        "chunks",
        "a request between two chunks is in no queue",
        lambda c: 0 < c.chunked_prefill_size <= c.max_total_tokens // 4,
        motifs={"parked_chunk": 2},
    ),
    Feature(
        "mixed",
        "decoding requests grow while a chunk is under way",
        lambda c: c.enable_mixed_chunk,
        motifs={"starved_chunk": 3, "ends_in_prefill": 3},
    ),
    Feature(
        "priority",
        "who waits and who runs changes with every arrival, when all rows are taken",
        lambda c: c.enable_priority_scheduling,
        motifs={"preempt": 3, "preempted_victim": 3},
        profiles={"saturated": 3},
    ),
    Feature(
        "queue limit",
        "a newcomer is refused, or takes the place of another request",
        lambda c: c.max_queued_requests is not None,
        motifs={"queue_full": 3},
        profiles={"saturated": 2},
    ),
    Feature(
        "prefix order",
        "a waiting request refers to nodes of the tree that it has not locked",
        lambda c: c.schedule_policy in ("lpm", "dfs-weight"),
        motifs={"evict_while_waiting": 2, "stolen_prefix": 3, "next_turn": 2, "diverge": 2},
    ),
    Feature(
        "no tree",
        "every page belongs to one request, and what is freed is free",
        lambda c: c.disable_radix_cache,
        motifs={"near_capacity": 2, "retracted_victim": 2},
    ),
    Feature(
        "low conservativeness",
        "more is admitted than fits: running requests are retracted",
        lambda c: c.schedule_conservativeness <= 0.05,
        motifs={"retracted_victim": 2},
        profiles={"oversubscribed": 2},
    ),
    Feature(
        "speculation",
        "rejected drafts leave with their pages, and several tokens come between an abort or a pause and its effect",
        lambda c: c.speculative_algorithm is not None,
        motifs={"near_capacity": 2, "retracted_victim": 2, "next_turn": 2},
        profiles={"steady": 2},
    ),
    Feature(
        "retraction policy",
        "who is retracted depends on more than lengths",
        lambda c: c.retraction_policy is not None,
        motifs={"retracted_victim": 2, "logprobs_retracted": 2},
        profiles={"oversubscribed": 2},
    ),
    Feature(
        "time-outs",
        "time passes while requests wait, so there must be a queue",
        lambda c: c.req_waiting_timeout is not None or c.req_running_timeout is not None,
        motifs={"time_out": 2},
        profiles={"saturated": 3},
    ),
    Feature(
        "host cache",
        "what is evicted comes back from the host when its prefix does",
        lambda c: c.enable_hierarchical_cache,
        motifs={"next_turn": 3, "diverge": 2, "stolen_prefix": 3, "evict_while_waiting": 3, "prefix_right_after": 2},
        profiles={"steady": 2},
        switches={"evict_radix": 4},
    ),
    Feature(
        "window or state",
        "beside the pages of a prefix something else of it is kept, and leaves at another time",
        lambda c: c.model != "dense",
        motifs={"next_turn": 3, "diverge": 2, "stolen_prefix": 2, "parked_chunk": 2, "retracted_victim": 2,
                "aborted_while_parked": 2},
        switches={"evict_radix": 3},
    ),
    Feature(
        "sessions",
        "what a session keeps is only met by turns of it, and half of the other motifs fill the pool first",
        lambda c: c.enable_streaming_session,
        motifs={
            "conversation": 3, "turn_struck": 3, "first_turn_struck": 3, "turns_at_once": 2, "closed_while_running": 3,
            "sessions_fill_the_pool": 2, "flush_while_kept": 3, "idle_session_ends": 3, "branches": 3,
        },
        profiles={"idle": 3, "steady": 2},
    ),  # fmt: skip
    Feature(
        "adapters",
        "who waits for a slot, and whose KV is found, depends on what runs",
        lambda c: c.enable_lora,
        motifs={
            "one_adapter_too_many": 3, "chunk_keeps_adapter": 3, "prefix_of_another_adapter": 2, "last_of_adapter": 3,
            "time_out": 2,
        },
    ),  # fmt: skip
)


@dataclass(frozen=True)
class Weights:
    """The weights for one configuration."""

    motifs: Mapping[str, int]
    """Factors of the motifs' own weights; 1 where a motif is missing."""
    profiles: Mapping[str, int]
    """By name, absolute."""
    switches: Mapping[str, int]
    """How many of four scripts, by tag."""

    def motif(self, name: str) -> int:
        return self.motifs.get(name, 1)


def features_of(config: EngineConfig) -> list[Feature]:
    return [feature for feature in FEATURES if feature.has(config)]


@lru_cache(maxsize=None)
def weights_of(config: EngineConfig) -> Weights:
    """The weights of a configuration."""
    motifs: dict[str, int] = {}
    profiles = dict(PROFILE_WEIGHTS)
    switches: dict[str, int] = {}
    for feature in features_of(config):
        for name, factor in feature.motifs.items():
            motifs[name] = motifs.get(name, 1) * factor
        for name, factor in feature.profiles.items():
            profiles[name] *= factor
        for tag, on in feature.switches.items():
            switches[tag] = max(on, switches.get(tag, 0))
    return Weights(motifs, profiles, SWITCH_WEIGHTS | switches)
