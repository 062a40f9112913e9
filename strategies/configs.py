"""Engine configurations by name, and the sets they form; they are written out in `sr_fuzz.strategies.config_tables`."""

from __future__ import annotations

from collections.abc import Iterable

from sr_fuzz.strategies import config_tables as tables
from sr_fuzz.strategies.lora_configs import LORA
from sr_fuzz.strategies.ngram_configs import NGRAM

from sr_fuzz.script import EngineConfig
from sr_fuzz.script.wording import did_you_mean, shortened

# Both loops, with and without chunks, with and without the tree: what an exhauster interacts with.
_EXHAUSTERS = (
    "overlap-chunk16", "overlap-nochunk", "normal-chunk8", "mixed-chunk16", "priority-preempt", "noradix-lof-chunk16"
)  # fmt: skip

# Configurations for which SGLang runs other code on a GPU than on a CPU: streams and pinned memory, Triton's kernels
# for pages, the corpus that proposes drafts and the kernels that verify them.
_GPU = ("overlap-chunk16", "mixed-chunk16", "paged4-chunk16", "ngram-chunk16", "ngram-paged4-chunk16")

# Each release has a default tree; some releases refuse the other trees.
_ONE_RANK = (
    tables.DEFAULT
    | tables.PAGED
    | tables.RETRACTION
    | tables.TIMEOUTS
    | tables.DISAGGREGATION
    | tables.HICACHE
    | tables.SWA
    | tables.MAMBA
    | tables.SESSIONS
    | tables.EMBEDDINGS
    | LORA
)

CONFIG_SETS: dict[str, dict[str, EngineConfig]] = {
    "default": tables.DEFAULT,
    "exhausters": {name: tables.DEFAULT[name] for name in _EXHAUSTERS},
    "paged": tables.PAGED,
    "priority": {name: config for name, config in _ONE_RANK.items() if config.enable_priority_scheduling},
    "parallel": tables.PARALLEL,
    "schedules": tables.SCHEDULES,
    "retraction": tables.RETRACTION,
    "rust": tables.RUST,
    "trees": tables.TREES,
    "timeouts": tables.TIMEOUTS,
    "disaggregation": tables.DISAGGREGATION,
    "hicache": tables.HICACHE,
    "swa": tables.SWA,
    "pure-swa": {name: config for name, config in tables.SWA.items() if config.model == "pure_swa"},
    "mamba": tables.MAMBA,
    "sessions": tables.SESSIONS,
    "requests": tables.EMBEDDINGS,
    "lora": LORA,
    "ngram": NGRAM,
    "gpu": {name: (tables.DEFAULT | tables.PAGED | NGRAM)[name] for name in _GPU},
    "all": _ONE_RANK,
}
"""Sets of configurations: set name -> configuration name -> configuration. A name means the same in every set.

``all`` is what one scheduler process can run on a CPU, on every supported release that has the argument or policy; the
sets ``rust`` and ``trees`` are not in it, since releases differ in the trees that they have.
"""


def needs(config: EngineConfig) -> str:
    """What a configuration needs beside a CPU and one scheduler process, in words; empty for nothing."""
    return "needs the server engine" if config.world_size > 1 else ""


def find_configs(names: Iterable[str]) -> dict[str, EngineConfig]:
    """Look up set names and configuration names, in the order given; a name that comes twice counts once.

    Raises `ValueError`, one line with the names that are like it, for an unknown name and when there is no name at all.
    """
    known = {name: config for members in CONFIG_SETS.values() for name, config in members.items()}
    found: dict[str, EngineConfig] = {}
    for name in names:
        if name in CONFIG_SETS:
            found.update(CONFIG_SETS[name])
        elif name in known:
            found[name] = known[name]
        else:
            like = did_you_mean(name, [*CONFIG_SETS, *known], otherwise=_LISTED)
            raise ValueError(f"no engine configuration {shortened(repr(name), 60)}; {like}")
    if not found:
        raise ValueError(f"no engine configuration given; {_LISTED}")
    return found


_LISTED = "`sr-fuzz configs` lists them"
