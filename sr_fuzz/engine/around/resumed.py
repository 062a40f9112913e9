"""An engine that plays a script again when one of the engine's processes was killed while it was played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import ProcessLost

OnLoss = Callable[[Script | None, ProcessLost], None]


class ResumedEngine(WrappedEngine):
    """Plays what was interrupted once more, on processes that are started anew, and tells of it.

    A script whose second try is interrupted as well may be the reason, by the memory that it takes: that error is
    raised.
    """

    def __init__(self, engine: Engine, on_loss: OnLoss) -> None:
        """``on_loss`` is called with the script, None for a script function, before it is played again."""
        super().__init__(engine)
        self._on_loss = on_loss

    def around(self, engine: Engine) -> ResumedEngine:
        return ResumedEngine(engine, self._on_loss)

    def fresh(self) -> Engine:
        return self.around(self._engine.fresh())

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        try:
            return super().run(script, invariants=invariants, limit_s=limit_s)
        except ProcessLost as error:
            self._on_loss(script, error)
        return super().run(script, invariants=invariants, limit_s=limit_s)

    def execute(self, path: str, *, config: EngineConfig, **options: Any) -> Outcome:
        try:
            return super().execute(path, config=config, **options)
        except ProcessLost as error:
            self._on_loss(None, error)
        return super().execute(path, config=config, **options)

    def start(self, config: EngineConfig) -> None:
        try:
            return super().start(config)
        except ProcessLost as error:
            self._on_loss(None, error)
        super().start(config)
