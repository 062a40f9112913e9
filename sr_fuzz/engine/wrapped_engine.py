"""Base of the engines that wrap another engine: they change its input or check its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from sr_fuzz.engine.contract import Engine, Isolation
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script


class WrappedEngine:
    """An engine that forwards every call to the wrapped engine; closing it closes the wrapped engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def around(self, engine: Engine) -> Self:
        """Return the same wrapper around another engine."""
        return type(self)(engine)

    @property
    def sglang_version(self) -> str:
        return self._engine.sglang_version

    @property
    def sglang_tree(self) -> str | None:
        return self._engine.sglang_tree

    @property
    def faults(self) -> tuple[str, ...]:
        return self._engine.faults

    @property
    def isolation(self) -> Isolation:
        return self._engine.isolation

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        return self._engine.run(script, invariants=invariants, limit_s=limit_s)

    def execute(
        self,
        path: str,
        *,
        config: EngineConfig,
        args: Sequence[Any] = (),
        invariants: Sequence[str] | None = None,
        limit_s: float | None = None,
    ) -> Outcome:
        return self._engine.execute(path, config=config, args=args, invariants=invariants, limit_s=limit_s)

    def refuse(self, config: EngineConfig) -> None:
        self._engine.refuse(config)

    def start(self, config: EngineConfig) -> None:
        self._engine.start(config)

    def keep(self, n: int) -> None:
        self._engine.keep(n)

    def fresh(self) -> Engine:
        return self if self.isolation == "fresh" else self.around(self._engine.fresh())

    def restart(self) -> None:
        self._engine.restart()

    def with_faults(self, *faults: str) -> Self:
        return self.around(self._engine.with_faults(*faults))

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        self._engine.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
