"""An import hook that fixes SGLang's import without a GPU, in a process that may or may not import SGLang.

A test file imports SGLang's own modules, at least ``sglang.test.ci.ci_register``, and through them torchvision, which
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
    """Finds the same spec as the other finders, so that a check for the module is unaffected, with another loader."""

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
    """Applies the fix only after a failed import.

    A second definition of an operator would break a working torchvision.
    """

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
    """Make a later import of SGLang work without a GPU. Idempotent; it costs nothing until that import."""
    if _FAILS not in sys.modules and not any(isinstance(finder, _Mender) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Mender())
