"""Seeded faults: bugs put into SGLang on purpose, to measure whether the fuzzer would see them.

A fault is a context manager that patches SGLang while it is active, registered with `fault`::

    @fault("double_free", stands_for="pages freed twice on abort", expected=("kv_pages",))
    @contextmanager
    def double_free():
        ...

An engine is given faults by import path (``package.module:function``); they are entered in the process that boots the
scheduler, before it boots, and stay active until that process ends. In any other SGLang process our plugin enters
those that the environment variable ``SR_FUZZ_FAULTS`` names, and does nothing when it is unset.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

ENVIRONMENT_VARIABLE = "SR_FUZZ_FAULTS"

_active: dict[str, AbstractContextManager] = {}


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault says of itself."""

    name: str
    stands_for: str
    """The class of historical bug it stands for."""
    expected: tuple[str, ...]
    """Invariants (or ``exception``, ``crash``, ``hang``) expected to see it."""
    enter: Callable[[], AbstractContextManager]

    @property
    def path(self) -> str:
        """The import path that loads it."""
        return f"{self.enter.__module__}:{self.enter.__qualname__}"

    def __call__(self) -> AbstractContextManager:
        return self.enter()


def fault(name: str, *, stands_for: str, expected: tuple[str, ...]) -> Callable[[Callable], Fault]:
    """Declare a fault; the decorated function returns a context manager."""
    return lambda enter: Fault(name, stands_for, expected, enter)


def resolve(path: str) -> Callable[[], AbstractContextManager]:
    """Import ``module:function``. Raises ``ValueError``, one line, when it cannot."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"fault {path!r}: expected `package.module:function`")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"fault {path!r}: {error}") from None
    if not callable(target):
        raise ValueError(f"fault {path!r}: not callable")
    return target


def activate(paths: Iterable[str]) -> None:
    """Enter the faults named, for the rest of this process; those that are active already are left alone."""
    for path in paths:
        if path not in _active:
            manager = resolve(path)()
            manager.__enter__()
            _active[path] = manager


def activate_from_environment() -> None:
    activate(path for path in os.environ.get(ENVIRONMENT_VARIABLE, "").split(",") if path)
