"""Modules that SGLang's HTTP server and test cases import, although nothing here ever calls what is in them.

They belong to SGLang's full installation, which brings gigabytes along. Where one is missing a stand-in takes its
place; it raises as soon as it is used. Where it is installed nothing changes.
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
"""Each with what it is imported for."""


class _StandIn(ModuleType):
    """A module that has whatever one asks for, until it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: Any, **_kwargs: Any) -> Any:
            raise ModuleNotFoundError(f"{self.__name__}.{name} was called, but {self.__name__} is not installed")

        return missing


def install() -> None:
    """Put stand-ins for those of `NAMES` that are not installed. Idempotent; call it before SGLang is imported."""
    for name in NAMES:
        if name in sys.modules or importlib.util.find_spec(name) is not None:
            continue
        module = _StandIn(name)
        # Whoever looks for a module by its spec must find one, or it raises.
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
