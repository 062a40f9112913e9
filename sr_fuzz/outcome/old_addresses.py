"""Old module names that tests emitted by earlier versions import: a moved module is also found under its old name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "sr_fuzz.differential": "sr_fuzz.engine.around.differential",
    "sr_fuzz.scripted_runtime": "sr_fuzz.testing.scripted_runtime",
    "sr_fuzz.test_case": "sr_fuzz.testing.test_case",
}
"""Modules that an emitted test, or a test file for SGLang's scripted runtime, may import: old name -> new name."""


class _Moved(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(MOVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module was already executed under its new name."""


def install() -> None:
    """Make the old names importable; existing modules take precedence. Idempotent."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
