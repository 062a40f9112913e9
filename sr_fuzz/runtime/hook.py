"""The scheduler hook: SGLang calls it at the start of every step and before every forward.

The order within one step is fixed:

1. `step` completes the step that just ended: the observer (view, invariants, trace) checks the settled state;
2. the script's generator runs: its messages arrive in the step that now begins, its exhausters act at once;
3. SGLang receives messages, schedules and runs a batch; `on_run_batch` logs the batch.

A violation that the observer raises is thrown into the generator. A script does not catch it, so it leaves SGLang's
event loop; the dispatcher of a live scheduler catches it and plays the next script.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol


class ScriptEnded(BaseException):
    """Leaves SGLang's event loop when the script is over. It is not an ``Exception``, so that no handler catches it."""


@dataclass(frozen=True, slots=True)
class ScriptedBatchRecord:
    """One forward batch, as SGLang's scripted runtime logs it."""

    forward_iter: int
    mode: str | None
    rids: tuple[str, ...]
    extend_rids: tuple[str, ...]
    chunked_rid: str | None


class Observer(Protocol):
    """Reads the scheduler; it never changes its state."""

    def begin_step(self, step: int) -> None: ...

    def end_step(self, step: int) -> None: ...

    def on_run_batch(self, batch: Any) -> None: ...


class ScriptedSchedulerHook:
    """Drives one generator: each ``yield`` is one step of the scheduler's event loop."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._is_driver = True
        self._batch_log: list[ScriptedBatchRecord] = []
        self._generator: Generator | None = None
        self._observer: Observer | None = None
        self._proxy: Any = None
        self.steps = 0
        self.on_step: Callable[[int], None] | None = None
        """Called with the number of each step as it begins, so that another process can tell a long script from one
        that hangs."""

    def begin(self, generator: Generator, *, observer: Observer | None, proxy: Any) -> None:
        """Set the script's generator; the next `step` plays its first part."""
        self._generator, self._observer, self._proxy = generator, observer, proxy
        self._batch_log.clear()
        self.steps = 0

    def watch(self, observer: Observer | None) -> None:
        """Use this observer, or none, from this step on; for a generator that plays several scripts."""
        self._observer = observer
        self._batch_log.clear()
        self.steps = 1
        if observer is not None:
            observer.begin_step(1)

    def step(self) -> None:
        if self._generator is None:
            return
        found: BaseException | None = None
        try:
            if self._observer is not None and self.steps:
                self._observer.end_step(self.steps)
            self._proxy.next_step()
        except BaseException as error:
            found = error
        self.steps += 1
        if self.on_step is not None:
            self.on_step(self.steps)
        if self._observer is not None:
            self._observer.begin_step(self.steps)
        try:
            if found is None:
                next(self._generator)
            else:
                self._generator.throw(found)
        except StopIteration:
            raise ScriptEnded from None

    def on_run_batch(self, batch: Any) -> None:
        chunked = self.scheduler.chunked_req
        mode = batch.forward_mode.name.lower() if batch.forward_mode is not None else None
        rids = tuple(req.rid for req in batch.reqs)
        self._batch_log.append(
            ScriptedBatchRecord(
                forward_iter=getattr(batch, "forward_iter", len(self._batch_log) + 1),
                mode=mode,
                rids=rids,
                extend_rids=rids if mode is not None and batch.forward_mode.is_extend() else (),
                chunked_rid=chunked.rid if chunked is not None else None,
            )
        )
        if self._observer is not None:
            self._observer.on_run_batch(batch)
