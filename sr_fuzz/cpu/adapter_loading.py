"""The copies of adapters to the device that run beside the model (``enable_lora_overlap_loading``), without a GPU.

SGLang's loader puts a copy on a stream of its own and asks an event whether it is over. On a CPU the copy is over when
the call returns; so that adapters are seen while they are loaded, an event says no until the event loop has turned.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class _Event:
    """Over in the step after the one in which it was recorded."""

    def __init__(self, step: Callable[[], int]) -> None:
        self._step = step
        self._recorded: int | None = None

    def record(self, stream: Any = None) -> None:
        self._recorded = self._step()

    def synchronize(self) -> None:
        self._recorded = None

    def query(self) -> bool:
        return self._recorded != self._step()


class _Device:
    """What the loader asks ``torch.cpu`` or ``torch.cuda`` for once it is made."""

    def __init__(self, step: Callable[[], int]) -> None:
        self._step = step

    def Event(self) -> _Event:
        return _Event(self._step)

    @staticmethod
    def current_stream() -> Any:
        return SimpleNamespace(wait_event=lambda event: None)


def install(scheduler: Any) -> None:
    """Give the scheduler's loader such a device; does nothing where it has no loader."""
    if getattr(scheduler, "lora_overlap_loader", None) is None:
        return
    from sglang.srt.lora import lora_overlap_loader

    device = _Device(lambda: scheduler.scripted_scheduler_hook.steps)
    scheduler.lora_overlap_loader.device_module = device
    # Up to 0.5.19 it asks CUDA for the current stream, whatever the device.
    loader: Any = lora_overlap_loader
    loader.torch = SimpleNamespace(cuda=device)
