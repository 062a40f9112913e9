"""The engine protocol: the only interface between callers that have scripts and the scheduler that plays them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script

Isolation = Literal["fresh", "shared"]
"""``fresh``: every run starts in a scheduler that has played nothing. ``shared``: one scheduler plays many scripts, one
after the other, and is emptied in between; state that one script leaves behind may affect the next."""


class UnderTest(Protocol):
    """What a finding says of the engine that has shown it."""

    @property
    def sglang_version(self) -> str: ...

    @property
    def sglang_tree(self) -> str | None: ...

    @property
    def faults(self) -> tuple[str, ...]: ...


class Engine(Protocol):
    """An engine plays scripts on a real scheduler; it is a context manager that ends its processes.

    No process starts before the first use of a member that needs a scheduler.
    """

    @property
    def sglang_version(self) -> str:
        """Version of the SGLang under test. Starts the engine if needed; raises `EngineError` when it cannot start."""
        ...

    @property
    def sglang_tree(self) -> str | None:
        """Folder of the source tree under test; None for the installed SGLang and for a release. Starts no process."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """Import paths of the context managers (seeded faults, fixes) that are active in its schedulers."""
        ...

    @property
    def isolation(self) -> Isolation: ...

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        """Play ``script``. A failure of SGLang, including a crash or a hang, is returned in the outcome.

        ``invariants``: names or families to check; None for all. ``limit_s``: limit of one step in seconds; None for
        the engine's default, which follows the size of the script. Raises `EngineError` when the script could not be
        played, `ProcessLost` among them when it may be played again; `ScriptError` when it is invalid.
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

        Raises ``AssertionError`` with the function's traceback when the function raises; otherwise as `run`.
        """
        ...

    def refuse(self, config: EngineConfig) -> None:
        """Raise `EngineError`, with the reason, for a configuration that cannot run on this engine."""
        ...

    def start(self, config: EngineConfig) -> None:
        """Boot ``config`` without playing anything. Raises `EngineError` when it cannot boot."""
        ...

    def keep(self, n: int) -> None:
        """Keep at most ``n`` configurations booted at a time; the least recently used one is ended first."""
        ...

    def fresh(self) -> Engine:
        """Return this engine with isolation ``fresh``, which may be slow. Closing one closes the other."""
        ...

    def restart(self) -> None:
        """End every process of this engine, after it broke; the next run starts new ones."""
        ...

    def with_faults(self, *faults: str) -> Engine:
        """Return a second engine of the same kind, with these faults instead of its own. Close it before this one."""
        ...

    def close(self) -> None:
        """End every process of the engine. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
