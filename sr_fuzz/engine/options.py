"""The choice of engine for a test session: it checks the command line's options and creates the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sr_fuzz.engine import prerequisites
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.parallel_ranks import Ranks
from sr_fuzz.script import EngineConfig

KINDS = ("local", "persistent", "server")

# The upper bound of the fields of `EngineConfig`: the number of GPUs that a machine commonly has at most.
_MAX_RANKS = 8


# Number of schedulers that are kept on a GPU. A start takes 10 s or more, so it is the size of the largest group of
# configurations in tests/properties. Each takes half a gigabyte of device memory for its CUDA context and 2 GB of host
# memory, a server three times that.
_LIVE_ON_GPU = {"persistent": 8, "server": 3}


class EngineOptions(NamedTuple):
    """A valid choice of engine."""

    kind: str
    device: str | None
    """``cuda``, or None for the engine's default."""
    model: str | None
    """Path or name of a real model; None for the oracle model."""
    ranks: Ranks

    @property
    def line(self) -> str:
        """One line for the header of a report."""
        named = {"device": self.device, "model": self.model} | self.ranks.fields
        return " ".join([self.kind, *(f"{name}={value}" for name, value in named.items() if value)])


def choose(
    kind: str | None = None, *, model: str | None = None, ranks: Ranks = Ranks(), gpu: bool = False
) -> EngineOptions:
    """Return the options with defaults. ``gpu``: whether to run on CUDA, which a forked process cannot use.

    Raises ``ValueError``, one line, for options that exclude each other.
    """
    for name, count in zip(ranks._fields, ranks):
        if not 1 <= count <= _MAX_RANKS:
            raise ValueError(f"--sr-{name} {count}: expected a number from 1 to {_MAX_RANKS}")
    if kind is None:
        kind = ("server" if ranks.several else "persistent") if gpu else "local"
    if ranks.several and kind != "server":
        asked = " ".join(f"--sr-{name} {count}" for name, count in zip(ranks._fields, ranks) if count > 1)
        raise ValueError(f"{asked}: several ranks need --sr-engine server, not {kind}")
    if kind == "local" and gpu:
        raise ValueError("--sr-engine local runs on the CPU alone; the gpu profile needs persistent or server")
    if kind == "local" and model is not None:
        raise ValueError(f"--sr-model {model}: needs --sr-engine persistent or server; local runs the oracle alone")
    return EngineOptions(kind, "cuda" if gpu else None, model, ranks)


def make_engine(
    options: EngineOptions, *, faults: Sequence[str], sys_path: Sequence[str], limit_s: float | None = None
) -> Engine:
    """Return the engine, a context manager. It starts no process yet. Raises `EngineError` where none could start.

    ``limit_s``: how long a step may take, in seconds; None for the default of this kind of engine.
    """
    prerequisites.check()
    common: dict[str, Any] = {"faults": faults, "sys_path": sys_path}
    if limit_s is not None:
        common["limit_s"] = limit_s
    if options.kind == "local":
        from sr_fuzz.engine.local.engine import LocalEngine

        return LocalEngine(**common)
    from sr_fuzz.engine.live.persistent import PersistentEngine
    from sr_fuzz.engine.live.server import ServerEngine

    kind = PersistentEngine if options.kind == "persistent" else ServerEngine
    engine = kind(**common, device=options.device, model=options.model)
    if options.device == "cuda":
        engine.keep(_LIVE_ON_GPU[options.kind])
    return engine


def start(engine: Engine, options: EngineOptions) -> None:
    """Boot the configuration that most tests use, so that a start failure is reported once. Raises `EngineError`."""
    engine.start(options.ranks.in_config(EngineConfig()))
