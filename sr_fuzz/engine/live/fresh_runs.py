"""A live engine that restarts the scheduler for every run, which is slow and which a confirmation needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sr_fuzz.engine.contract import Engine, Isolation
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script, validate


class FreshRuns(WrappedEngine):
    """Restarts the scheduler of a configuration before each run on it."""

    def __init__(self, engine: Engine, start_anew: Callable[[EngineConfig], None]) -> None:
        """``start_anew`` ends the scheduler that ``engine`` runs for a configuration, unless it has played nothing."""
        super().__init__(engine)
        self._start_anew = start_anew

    def around(self, engine: Engine) -> Engine:
        """Return the fresh runs of the other engine, because only that engine can restart its scheduler."""
        return engine.fresh()

    @property
    def isolation(self) -> Isolation:
        return "fresh"

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        # A script that is refused needs no restart.
        validate(script)
        self.refuse(script.config)
        self._start_anew(script.config)
        return super().run(script, invariants=invariants, limit_s=limit_s)

    def execute(self, path: str, *, config: EngineConfig, **options: Any) -> Outcome:
        self.refuse(config)
        self._start_anew(config)
        return super().execute(path, config=config, **options)

