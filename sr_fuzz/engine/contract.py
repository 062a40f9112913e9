"""What an engine is: the one seam between those who have scripts and the scheduler that plays them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script

Isolation = Literal["fresh", "shared"]
"""``fresh``: every run starts in a scheduler that has played nothing. ``shared``: one scheduler plays many scripts, one
after the other, emptied in between; what one leaves behind may show in the next."""


class Engine(Protocol):
    """What plays scripts on a real scheduler; a context manager that ends its processes.

    Nothing starts before the first member that needs a scheduler is used.
    """

    @property
    def sglang_version(self) -> str:
        """Version of the SGLang under test. Starts the engine if need be; `EngineError` when it cannot start."""
        ...

    @property
    def sglang_tree(self) -> str | None:
        """Folder of the source tree under test; None for what is installed, and for a release. Starts nothing."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """Import paths of the context managers (seeded faults, fixes) that its schedulers run under."""
        ...

    @property
    def isolation(self) -> Isolation: ...

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        """Play ``script``; what SGLang does, a crash or a hang too, is in the outcome.

        ``invariants``: names or families to check, None for all. ``limit_s``: limit of the run in seconds, None for the
        engine's own. Raises `EngineError` when the script could not be played, `ScriptError` when it is invalid.
        """
        ...

    def execute(
        self,
        path: str,
        *,
        config: EngineConfig,
        args: Sequence[Any] = (),
        invariants: Sequence[str] | None = None,
        limit_s: float | None = None,
    ) -> Outcome:
        """Run a script function, ``module:function``, in the scheduler process; ``args`` are plain data.

        Raises ``AssertionError`` with the function's traceback when it raises, otherwise as `run`.
        """
        ...

    def refuse(self, config: EngineConfig) -> None:
        """Raises `EngineError`, with the reason, for a configuration that cannot run on this engine."""
        ...

    def start(self, config: EngineConfig) -> None:
        """Boot ``config`` without playing anything. Raises `EngineError` when it cannot boot."""
        ...

    def keep(self, n: int) -> None:
        """Keep at most ``n`` configurations booted at a time; the one that was used longest ago ends first."""
        ...

    def fresh(self) -> Engine:
        """This engine with isolation ``fresh``, at whatever cost. To close one closes the other."""
        ...

    def with_faults(self, *faults: str) -> Engine:
        """A second engine of the same kind, with these faults in place of its own. Close it before this one."""
        ...

    def close(self) -> None:
        """End every process of the engine. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
