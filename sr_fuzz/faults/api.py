"""Seeded faults: bugs that are put into SGLang on purpose, to measure whether the fuzzer detects them.

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

A fault reports whether it was *reached* (the patched code was executed; `wrapped` reports this) and *triggered* (it
misbehaved; its code calls `triggered`). The counts of a script are returned in ``Outcome.faults``.

An engine is given faults by import path (``package.module:function``). They are activated in the process that boots the
scheduler, before it boots, and stay active until that process ends. In any other SGLang process our plugin activates
the faults that the environment variable ``SR_FUZZ_FAULTS`` names, and does nothing when it is unset.
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
from sr_fuzz.script.wording import one_line, reason

ENVIRONMENT_VARIABLE = "SR_FUZZ_FAULTS"

_active: dict[str, AbstractContextManager] = {}
"""The active faults by import path."""

_counters: dict[str, memoryview] = {}
"""Times reached and times triggered, by name, in memory that is shared with forked children, so that a crash does not
lose them."""

_current: ContextVar[str | None] = ContextVar("fault", default=None)
"""Name of the fault whose code is running."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The declaration of a fault."""

    name: str
    stands_for: str
    """The class of historical bugs that it stands for."""
    expected: tuple[str, ...]
    """Invariants (or ``exception``, ``crash``, ``hang``) that are expected to detect it."""
    enter: Callable[[], AbstractContextManager]
    sets: tuple[str, ...] = ("default",)
    """Configurations, or sets of configurations, on which it can be triggered."""

    @property
    def path(self) -> str:
        """The import path that loads it."""
        return f"{self.enter.__module__}:{self.enter.__qualname__}"

    def __call__(self) -> AbstractContextManager:
        return _entered(self.name, self.enter)


def fault(
    name: str,
    *,
    stands_for: str,
    expected: tuple[str, ...],
    sets: tuple[str, ...] = ("default",),
    releases: str | None = None,
) -> Callable[[Callable], Fault]:
    """Declare a fault. The decorated function returns a context manager.

    ``releases``, a version specifier, is for a fix of which other releases need not have the names, since they do not
    have the bug; `sr_fuzz.faults.names` reads it from the source. Raises ``ValueError`` if ``name`` is not that of the
    function.
    """


    def declare(enter: Callable) -> Fault:
        # An outcome counts by the name, and who reads it knows the import path, without importing the fault.
        if enter.__name__ != name:
            raise ValueError(f"fault {name!r}: its name must be that of its function, {enter.__name__!r}")
        return Fault(name, stands_for, expected, enter, sets)

    return declare


# -- what a fault's code says ----------------------------------------------------------------------------------


def reached(name: str | None = None) -> None:
    """Report that the patched code is executed, for a fault that does not use `wrapped`. ``name``: see `triggered`."""
    _count(0, name)


def triggered(name: str | None = None) -> None:
    """Report that the fault misbehaves now.

    Without ``name`` it is the fault whose `wrapped` function is running, else the only active fault; nothing is counted
    if that is ambiguous.
    """
    _count(1, name)


@contextmanager
def wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """While the context is active, a call of ``owner.name`` is counted and calls ``wrapper(original, …)`` instead.

    The wrapper gets the same arguments. ``owner`` is a class, or a module that calls the function by that name. Raises
    `AttributeError` if this SGLang has no such function: a fault that cannot be active must not look like one that was
    not detected.
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
        # A fault that was triggered was also reached.
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
    """Import ``module:function``. Raises ``ValueError``, one line, when that fails."""
    module_name, _, attribute = current(path).partition(":")
    if not module_name or not attribute:
        raise ValueError(f"fault {path!r}: expected `package.module:function`")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"fault {path!r}: {one_line(str(error))}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may also end the interpreter that imports it
        raise ValueError(f"fault {path!r}: its module raised {reason(error)}") from None
    if not callable(target):
        raise ValueError(f"fault {path!r}: not callable")
    return target


def as_fault(path: str) -> Fault:
    """Return the fault at ``path``; a plain context manager is converted to one. Raises ``ValueError``, one line."""
    target = resolve(path)
    return target if isinstance(target, Fault) else Fault(path.partition(":")[2], "", (), target)


def activate(paths: Iterable[str]) -> None:
    """Activate the named faults for the rest of this process; those that are already active are not changed."""
    for path in paths:
        if path not in _active:
            manager = as_fault(path)()
            manager.__enter__()
            _active[path] = manager


def activate_from_environment() -> None:
    activate(path for path in os.environ.get(ENVIRONMENT_VARIABLE, "").split(",") if path)


def _counter() -> memoryview:
    """Return counters (reached, triggered) that are shared with the processes forked from this one."""
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
    """Return how often each active fault was reached and triggered since `reset_counts`, by name."""
    return {name: (counter[0], counter[1]) for name, counter in _counters.items()}


def separate_counts() -> None:
    """Use counters of its own in a forked process, separate from those of its parent."""
    for name in _counters:
        _counters[name] = _counter()


def reset_counts() -> None:
    for counter in _counters.values():
        counter[0] = counter[1] = 0
