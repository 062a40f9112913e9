"""Stand-ins for modules that SGLang's HTTP server and test cases import, but that are never called here.

They belong to SGLang's full installation, which takes gigabytes. Where a module is missing, a stand-in replaces it and
raises as soon as it is used. Where it is installed, nothing changes.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAMES = {
    "datasets": "benchmarks, which sglang.test.test_utils imports",
    "soundfile": "transcription of audio, which the HTTP server imports",
}
"""Each module, with the code that imports it."""


class _StandIn(ModuleType):
    """A stand-in module that has every attribute; each one raises when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: Any, **_kwargs: Any) -> Any:
            raise ModuleNotFoundError(f"{self.__name__}.{name} was called, but {self.__name__} is not installed")

        return missing


def install() -> None:
    """Install stand-ins for the modules in `NAMES` that are not installed.

    Idempotent; call it before SGLang is imported.
    """
    for name in NAMES:
        if name in sys.modules or importlib.util.find_spec(name) is not None:
            continue
        module = _StandIn(name)
        # Code that looks for the module by its spec must find one; `importlib.util.find_spec` raises otherwise.
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
