"""Statistics of scripts: what they reach on each configuration, which shows a strategy that reaches nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
from hypothesis.strategies import SearchStrategy

from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.play.reach_kinds import KINDS, add_reach, applies, dead_kinds
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.strategies import draw


class ConfigReach(msgspec.Struct):
    """The kinds that were reached on one configuration."""

    config: EngineConfig
    scripts: int = 0
    steps: int = 0
    forwards: int = 0
    violations: dict[str, int] = {}
    """Number of violations by signature."""
    reach: dict[str, int] = {}

    def count(self, kind: str) -> int | None:
        """How often ``kind`` was reached; None where it cannot occur."""
        found = self.reach.get(kind, 0)
        return found if found or applies(kind, self.config) else None


class Statistics(msgspec.Struct):
    """The kinds that scripts reached, by configuration name."""

    sglang_version: str
    seed: int
    configs: dict[str, ConfigReach]
    total: dict[str, int] = {}
    never_reached: list[str] = []
    """Kinds that could occur on one of the configurations but never did."""
    elapsed_s: float = 0.0

    @property
    def scripts(self) -> int:
        return sum(config.scripts for config in self.configs.values())

    @property
    def kinds(self) -> list[str]:
        """All kinds: the listed ones in their order, then any others that occurred."""
        return [*KINDS, *sorted(kind for kind in self.total if kind not in KINDS)]


def measure(
    engine: Engine,
    configs: Mapping[str, EngineConfig],
    scripts: SearchStrategy[Script],
    *,
    count: int,
    seed: int,
    time_s: float | None = None,
    on_script: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] = time.monotonic,
) -> Statistics:
    """Play ``count`` scripts over ``configs`` on ``engine``, or as many as ``time_s`` seconds allow, and count.

    The same ``seed`` draws the same scripts. A violation does not end the measurement: it is counted.
    """
    found = Statistics(engine.sglang_version, seed, {name: ConfigReach(config) for name, config in configs.items()})
    names = {config: name for name, config in configs.items()}
    started = clock()
    for done, script in enumerate(draw.first(scripts, seed=seed, count=count), 1):
        if time_s is not None and clock() - started >= time_s:
            break
        tally(found.configs[names[script.config]], script, engine.run(script, invariants=None))
        on_script(done)
    found.elapsed_s = clock() - started
    for config in found.configs.values():
        add_reach(found.total, config.reach)
    found.never_reached = dead_kinds(found.total, configs.values())
    return found


def tally(config: ConfigReach, script: Script, outcome: Outcome) -> None:
    """Add one run to its configuration."""
    config.scripts += 1
    config.steps += outcome.steps
    config.forwards += outcome.forwards
    add_reach(config.reach, outcome.reach)
    if outcome.violation is not None:
        found = signature(outcome.violation, script.config)
        config.violations[found] = config.violations.get(found, 0) + 1
