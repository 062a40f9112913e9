"""The modes of the matrix: each is a way to run the engine, as a user would name it, with what plays it.

A new mode is one entry of `MODES`. It names configurations (or sets of them) of `sr_fuzz.strategies.configs`; a set
that does not exist produces a row that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sr_fuzz.strategies.configs import find_configs

from sr_fuzz.script import Action, EngineConfig, Prompt, StartReq, Step, StepUntil


@dataclass(frozen=True)
class Mode:
    """One row of the matrix."""

    name: str
    configs: tuple[str, ...]
    """Names of configurations or of sets; the first `MEMBERS` of all their members are played."""
    actions: tuple[Action, ...] | None = None
    """Played as they are; None for scripts that the strategies draw for the configuration."""

    def members(self, most: int) -> dict[str, EngineConfig]:
        """Its configurations by name. Raises `ValueError`, one line, for a name that does not exist."""
        found: dict[str, EngineConfig] = {}
        for name in self.configs:
            taken = list(find_configs([name]).items())
            found.update(taken[: most if len(self.configs) == 1 else 1])
        return dict(list(found.items())[:most])


def _with(*starts: StartReq) -> tuple[Action, ...]:
    """Two requests of one kind among others; the second one hits the prefix of the first."""
    others = tuple(StartReq(f"other{index}", Prompt(index, 12), 6) for index in range(2))
    return (*others, Step(2), *starts, StepUntil(starts[0].name, "finished", max_steps=40), Step(4))


_LOGPROBS = _with(
    StartReq("r0", Prompt(3, 20), 8, return_logprob=True, logprob_start_len=0, top_logprobs_num=2),
    StartReq("r1", Prompt(3, 20, 2), 8, return_logprob=True, logprob_start_len=5),
)
_STOPS = _with(
    StartReq("r0", Prompt(0, 8), 24, stop_token_ids=(54, 45)), StartReq("r1", Prompt(1, 9), 24, stop_token_ids=(40,))
)

MODES: Sequence[Mode] = (
    Mode("overlap", ("overlap-chunk16", "overlap-chunk8-tiny")),
    Mode("no overlap", ("normal-chunk8",)),
    Mode("chunked prefill off", ("overlap-nochunk", "normal-nochunk")),
    Mode("chunks as large as the pool", ("chunk-pool",)),
    Mode("mixed chunk", ("mixed-chunk16", "normal-mixed-chunk8")),
    Mode("radix cache off", ("noradix-lof-chunk16", "noradix-nochunk")),
    Mode("pages of 4 tokens", ("paged4-chunk16", "paged4-mixed")),
    Mode("pages of 16 tokens", ("paged16-chunk16", "paged16-nochunk")),
    Mode("pages of 64 tokens", ("paged64-chunk64",)),
    Mode("policy lpm", ("lpm-chunk16",)),
    Mode("policy dfs-weight", ("dfs-weight-chunk8",)),
    Mode("policy random", ("random-queue3",)),
    Mode("policy lof", ("priority-low-first",)),
    Mode("policy routing-key", ("routing-key-chunk16",)),
    Mode("policy hrrn", ("hrrn-chunk16",)),
    Mode("priority with preemption", ("priority-preempt", "paged4-priority")),
    Mode("retraction by length", ("retract-length",)),
    Mode("retraction by priority", ("retract-priority", "retract-priority-preempt")),
    Mode("queue limit", ("random-queue3", "priority-low-first")),
    Mode("time-outs", ("timeouts",)),
    Mode("legacy tree", ("legacy-chunk16",)),
    Mode("unified tree, Python core", ("unified-chunk16", "unified-paged4-chunk8")),
    Mode("unified tree, Rust core", ("rust",)),
    Mode("hybrid sliding window", ("swa",)),
    Mode("pure sliding window", ("pure-swa-chunk16", "pure-swa-noradix")),
    Mode("hybrid Mamba", ("mamba",)),
    Mode("hierarchical cache", ("hicache",)),
    Mode("LoRA", ("lora",)),
    Mode("NGRAM speculation", ("ngram",)),
    Mode("sessions", ("sessions",)),
    Mode("logprobs", ("overlap-chunk16", "mixed-chunk16"), _LOGPROBS),
    Mode("stop tokens", ("overlap-chunk16", "normal-chunk8"), _STOPS),
    Mode("embeddings", ("requests",)),
    Mode("prefill half, fake transfer", ("prefill-chunk16", "prefill-chunk8-normal")),
    Mode("decode half, fake transfer", ("decode-overlap", "decode-normal")),
    Mode("two tensor-parallel ranks", ("tensor2",)),
    Mode("two pipeline stages", ("pipeline2",)),
)
