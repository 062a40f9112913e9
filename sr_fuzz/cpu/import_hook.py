"""Mending SGLang's import where it fails without a GPU, in a process that may import SGLang or not.

A test file imports SGLang's own modules, if only ``sglang.test.ci.ci_register``, and through them torchvision, which
does not match a CPU build of torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from sr_fuzz.cpu import standins

_FAILS = "torchvision"


class _Mender(MetaPathFinder):
    """Finds what the others find; who only asks whether it is there gets the same answer."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _FAILS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _SecondTry(spec.loader)
        return spec


class _SecondTry(Loader):
    """Where the import goes well, nothing is mended: an operator that is defined twice would break it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except RuntimeError:
            standins.mend_imports()
            self._loader.exec_module(module)


def mend_when_imported() -> None:
    """From now on SGLang can be imported without a GPU. Costs nothing until then, and idempotent."""
    if _FAILS not in sys.modules and not any(isinstance(finder, _Mender) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Mender())
