"""Start of the engine that the options ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sr_fuzz.cli.options import EngineKind

if TYPE_CHECKING:
    from sr_fuzz.engine.contract import Engine


@contextmanager
def start(
    faults: Sequence[str] | None,
    kind: EngineKind = EngineKind.LOCAL,
    sglang: str | None = None,
    *,
    keep: int | None = None,
    limit_s: float | None = None,
) -> Iterator[Engine]:
    """Yield an engine that starts when it is first used.

    ``sglang``: a release, a source tree or a wheel; None for the installed SGLang. ``keep``: how many configurations it
    keeps booted; ``limit_s``: how long a step may take. None for the defaults of this kind of engine.
    """
    folders = prepare(sglang)
    from sr_fuzz.engine.options import choose, make_engine

    if sys.stderr.isatty():
        took = "half a minute" if kind is EngineKind.SERVER else "about ten seconds"
        print(f"starting the engine: importing SGLang takes {took} ...", file=sys.stderr)
    engine = make_engine(choose(kind.value), faults=tuple(faults or ()), sys_path=folders, limit_s=limit_s)
    if keep is not None:
        engine.keep(keep)
    with engine:
        yield engine


def prepare(sglang: str | None) -> list[str]:
    """Return `search_path`, after a look at what an earlier start may have left, and at the release."""
    from sr_fuzz.sglang_api.releases import remove_unfinished

    remove_unfinished()
    folders = search_path(sglang)
    _mention_untested(folders)
    return folders


def version(folders: Sequence[str]) -> str | None:
    """Return the version of the SGLang that an engine with that path imports; None where there is none."""
    from sr_fuzz.sglang_api.versions import imported_package, version_in

    package = imported_package(folders)
    return version_in(package) if package is not None else None


def search_path(sglang: str | None) -> list[str]:
    """Return the folders that an engine puts first on its path: that of ``--sglang``, and the current one.

    The current one is there because faults may be defined in the current project, as with ``python -m``. A source tree
    that is found there, or by ``PYTHONPATH``, is named like one of ``--sglang``, so that a finding says where it was
    found.
    """
    from sr_fuzz.sglang_api.sources import sglang_folder, tree_on
    from sr_fuzz.sglang_api.versions import imported_package

    here = os.getcwd()
    if sglang is not None:
        return [str(sglang_folder(sglang)), here]
    named = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    tree, package = tree_on([here, *named]), imported_package([here])
    return [tree, here] if tree is not None and package == Path(tree, "sglang") else [here]


def _mention_untested(folders: Sequence[str]) -> None:
    from sr_fuzz.sglang_api.versions import imported_package, untested, version_in

    package = imported_package(folders)
    if package is not None and (remark := untested(version_in(package))) is not None:
        print(f"sr-fuzz: warning: {remark}", file=sys.stderr)


def start_canary(engine: Engine) -> Engine:
    """Return a second engine of the same kind with the canary fault. It starts no process yet."""
    from sr_fuzz.faults.canary import canary

    faulty = engine.with_faults(canary.path)
    if faulty.isolation == "shared":
        faulty.keep(1)  # each one is a scheduler that takes memory in addition to those of the search
    return faulty
