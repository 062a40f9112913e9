"""Starting the engine that the options ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sr_fuzz.cli.options import EngineKind

if TYPE_CHECKING:
    from sr_fuzz.engine.contract import Engine
    from sr_fuzz.script import EngineConfig


@contextmanager
def start(
    faults: Sequence[str] | None,
    kind: EngineKind = EngineKind.LOCAL,
    configs: int = 1,
    sglang: str | None = None,
) -> Iterator[Engine]:
    """An engine, started when it is used.

    ``configs``: how many configurations will take turns. ``sglang``: the release, None for the installed one.
    """
    from sr_fuzz.sglang_api.releases import release_folder

    release = [str(release_folder(sglang))] if sglang is not None else []
    from sr_fuzz.engine.options import choose, make_engine

    if sys.stderr.isatty():
        took = "half a minute" if kind is EngineKind.SERVER else "about ten seconds"
        print(f"starting the engine: importing SGLang takes {took} ...", file=sys.stderr)
    # Faults may lie in the project at hand, as with `python -m`.
    folders = [*release, os.getcwd()]
    engine = make_engine(choose(kind.value), faults=tuple(faults or ()), sys_path=folders)
    if kind is not EngineKind.LOCAL:
        engine.max_schedulers = max(configs, engine.max_schedulers)
    with engine:
        yield engine


def boot(engine: Any, config: EngineConfig) -> None:
    """Have a live engine start with a configuration that will be used; the local one boots in no time."""
    if hasattr(engine, "holder"):
        engine.holder(config).ready()


def start_canary(engine: Any) -> Any:
    """A second engine of the same kind, with the canary fault; nothing starts yet."""
    from sr_fuzz.faults.canary import canary

    faulty = engine.with_faults(canary.path)
    if hasattr(faulty, "holder"):
        faulty.max_schedulers = 1
        # Whether the canary is seen is the question, not whose doing it is.
        faulty.tries_alone = False
    return faulty
