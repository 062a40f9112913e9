"""Stand-ins for packages of GPU kernels that SGLang imports on any CUDA GPU and that the oracle model never runs.

These packages take hundreds of megabytes. Where one is missing, a stand-in replaces it: every name can be imported from
it, and raises when it is called. Where a package is installed, nothing changes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

PACKAGES = {
    "sgl_kernel": {"SGLANG_SKIP_SGL_KERNEL_VERSION_CHECK": "1"},
    # SGLang must not take the stand-in for a working package.
    "flashinfer": {"SGLANG_IS_FLASHINFER_AVAILABLE": "false"},
}
"""Import name -> environment variables with which SGLang runs without the package."""

# One kernel that decoding runs with any model. SGLang compiles it at its first use, with an nvcc that a machine without
# ``sgl_kernel`` may lack as well. The second name applies from 0.5.17 on.
_CLAMP = ("sglang.jit_kernel.clamp_position", "sglang.kernels.ops.attention.clamp_position")


def missing() -> tuple[str, ...]:
    """Return the names in `PACKAGES` that are not installed. Call it before `install`."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)


def install() -> None:
    """Install stand-ins for the missing packages, before SGLang is imported. Only the first call has an effect."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    lacking = missing()
    for name in lacking:
        os.environ.update(PACKAGES[name])
    if lacking:
        # It must be the first finder, since SGLang has the module of the compiled kernel.
        sys.meta_path.insert(0, _Finder(lacking))


def stands_for(package: str) -> bool:
    """Whether ``package`` has been replaced by a stand-in."""
    return any(package in finder.packages for finder in sys.meta_path if isinstance(finder, _Finder))


class _Absent:
    """Any attribute of a stand-in package: it has attributes of the same kind, and raises when it is called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}")

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        package = self._name.partition(".")[0]
        raise ModuleNotFoundError(f"{self._name} was called, but {package} is not installed: a real model needs it")


class StandIn(ModuleType):
    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    """Finds every module of the missing packages, and the module of the compiled kernel."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname in _CLAMP and "sgl_kernel" in self.packages:
            return ModuleSpec(fullname, self)
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name) if spec.name in _CLAMP else StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ in _CLAMP:
            module.clamp_position = module.clamp_position_cuda = _clamp_position  # type: ignore[attr-defined]


def _clamp_position(seq_lens: Any) -> Any:
    """Return the positions of the decoded tokens: the lengths (integers, shape [requests]) minus 1, at least 0."""
    import torch

    return torch.clamp(seq_lens - 1, min=0).to(torch.int64)
