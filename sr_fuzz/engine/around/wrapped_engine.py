"""Engines around engines: they change what goes in or look at what comes out, and pass on everything else."""

from __future__ import annotations

from typing import Any

from sr_fuzz.engine.options import Ranks
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script


class WrappedEngine:
    """Base: an engine, used like the one inside; also a context manager, which closes that one."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def around(self, engine: Any) -> WrappedEngine:
        """The same around another engine."""
        return type(self)(engine)

    def with_faults(self, *faults: str) -> WrappedEngine:
        return self.around(self._engine.with_faults(*faults))

    def __enter__(self) -> WrappedEngine:
        self._engine.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._engine.__exit__(*exc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class RankedEngine(WrappedEngine):
    """Every configuration gets the same ranks."""

    def __init__(self, engine: Any, ranks: Ranks) -> None:
        super().__init__(engine)
        self._ranks = ranks

    def around(self, engine: Any) -> RankedEngine:
        return RankedEngine(engine, self._ranks)

    def run(self, script: Script, **options: Any) -> Outcome:
        return self._engine.run(self._ranks.in_script(script), **options)

    def execute(self, path: str, *, config: EngineConfig, **options: Any) -> Outcome:
        return self._engine.execute(path, config=self._ranks.in_config(config), **options)
