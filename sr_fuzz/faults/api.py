"""Seeded faults: bugs put into SGLang on purpose, to measure whether the fuzzer would see them.

A fault is a context manager that patches SGLang while it is active, registered with `fault`::

    @fault("unfreed_row", stands_for="request rows leaked on an early end", expected=("request_rows",))
    def unfreed_row():
        from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

        def free(original, pool, req):
            original(pool, req)
            if len(req.output_ids) == 1:
                triggered()
                pool.free_slots.pop()

        return wrapped(ReqToTokenPool, "free", free)

It says of itself whether it was *reached* (the patched place was executed; `wrapped` says so) and *triggered* (it
misbehaved: `triggered`); the counts of a script come home in ``Outcome.faults``.

An engine is given faults by import path (``package.module:function``); they are entered in the process that boots the
scheduler, before it boots, and stay active until that process ends. In any other SGLang process our plugin enters
those that the environment variable ``SR_FUZZ_FAULTS`` names, and does nothing when it is unset.
"""

from __future__ import annotations

import functools
import importlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from sr_fuzz.faults.old_paths import current

ENVIRONMENT_VARIABLE = "SR_FUZZ_FAULTS"

_active: dict[str, AbstractContextManager] = {}
"""By import path."""

_counters: dict[str, memoryview] = {}
"""By name: times reached, times triggered. In memory that forked children share, so that a crash does not take it."""

_current: ContextVar[str | None] = ContextVar("fault", default=None)
"""Name of the fault whose code runs."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault says of itself."""

    name: str
    stands_for: str
    """The class of historical bug it stands for."""
    expected: tuple[str, ...]
    """Invariants (or ``exception``, ``crash``, ``hang``) expected to see it."""
    enter: Callable[[], AbstractContextManager]
    sets: tuple[str, ...] = ("default",)
    """Configurations, or sets of them, on which it can strike."""

    @property
    def path(self) -> str:
        """The import path that loads it."""
        return f"{self.enter.__module__}:{self.enter.__qualname__}"

    def __call__(self) -> AbstractContextManager:
        return _entered(self.name, self.enter)


def fault(
    name: str, *, stands_for: str, expected: tuple[str, ...], sets: tuple[str, ...] = ("default",)
) -> Callable[[Callable], Fault]:
    """Declare a fault; the decorated function returns a context manager."""
    return lambda enter: Fault(name, stands_for, expected, enter, sets)


# -- what a fault's code says ----------------------------------------------------------------------------------


def reached(name: str | None = None) -> None:
    """The patched place is being executed: for code that does not use `wrapped`. ``name``: see `triggered`."""
    _count(0, name)


def triggered(name: str | None = None) -> None:
    """The fault misbehaves now.

    Without ``name`` it is the fault whose `wrapped` function runs, else the only one that is active; nothing is counted
    where that leaves a doubt.
    """
    _count(1, name)


@contextmanager
def wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """While inside, calling ``owner.name`` calls ``wrapper(original, …)`` with the same arguments, and is counted.

    ``owner`` is a class, or a module that calls the function by that name. Raises `AttributeError` where this SGLang
    has no such function: a fault that is not there must not look like one that nobody saw.
    """
    original = getattr(owner, name)
    whose = _current.get()

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        with _running(whose):
            reached()
            return wrapper(original, *args, **kwargs)

    with patch.object(owner, name, replacement):
        yield


def _count(which: int, name: str | None) -> None:
    name = name or _current.get() or (next(iter(_counters)) if len(_counters) == 1 else None)
    counter = _counters.get(name) if name is not None else None
    if counter is not None:
        counter[which] += 1
        # Whoever misbehaves was there.
        counter[0] = counter[0] or counter[1]


@contextmanager
def _running(name: str | None) -> Iterator[None]:
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


# -- switching faults on ---------------------------------------------------------------------------------------


def resolve(path: str) -> Callable[[], AbstractContextManager]:
    """Import ``module:function``. Raises ``ValueError``, one line, when it cannot."""
    module_name, _, attribute = current(path).partition(":")
    if not module_name or not attribute:
        raise ValueError(f"fault {path!r}: expected `package.module:function`")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"fault {path!r}: {error}") from None
    except Exception as error:
        raise ValueError(f"fault {path!r}: its module raised {type(error).__name__}: {error}") from None
    if not callable(target):
        raise ValueError(f"fault {path!r}: not callable")
    return target


def as_fault(path: str) -> Fault:
    """The fault at ``path``, or one made of the bare context manager that is there. Raises ``ValueError``, one line."""
    target = resolve(path)
    return target if isinstance(target, Fault) else Fault(path.partition(":")[2], "", (), target)


def activate(paths: Iterable[str]) -> None:
    """Enter the faults named, for the rest of this process; those that are active already are left alone."""
    for path in paths:
        if path not in _active:
            manager = as_fault(path)()
            manager.__enter__()
            _active[path] = manager


def activate_from_environment() -> None:
    activate(path for path in os.environ.get(ENVIRONMENT_VARIABLE, "").split(",") if path)


def _counter() -> memoryview:
    """Reached, triggered: shared with the processes that are forked from this one."""
    return memoryview(mmap.mmap(-1, 16)).cast("Q")


@contextmanager
def _entered(name: str, enter: Callable[[], AbstractContextManager]) -> Iterator[None]:
    _counters[name] = _counter()
    try:
        with ExitStack() as stack:
            with _running(name):
                stack.enter_context(enter())
            yield
    finally:
        del _counters[name]


# -- what came of them -----------------------------------------------------------------------------------------


def counts() -> dict[str, tuple[int, int]]:
    """How often each active fault was reached and triggered since `reset_counts`, by name."""
    return {name: (counter[0], counter[1]) for name, counter in _counters.items()}


def separate_counts() -> None:
    """In a forked process: count from now on what happens in this one, apart from its parent."""
    for name in _counters:
        _counters[name] = _counter()


def reset_counts() -> None:
    for counter in _counters.values():
        counter[0] = counter[1] = 0
