"""An engine that plays every configuration on the same number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.parallel_ranks import Ranks
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script


class RankedEngine(WrappedEngine):
    """Sets the ranks in each configuration that it is given."""

    def __init__(self, engine: Engine, ranks: Ranks) -> None:
        super().__init__(engine)
        self._ranks = ranks

    def around(self, engine: Engine) -> RankedEngine:
        return RankedEngine(engine, self._ranks)

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        return super().run(self._ranks.in_script(script), invariants=invariants, limit_s=limit_s)

    def execute(self, path: str, *, config: EngineConfig, **options: Any) -> Outcome:
        return super().execute(path, config=self._ranks.in_config(config), **options)

    def refuse(self, config: EngineConfig) -> None:
        super().refuse(self._ranks.in_config(config))

    def start(self, config: EngineConfig) -> None:
        super().start(self._ranks.in_config(config))
