"""Overlapped loading of LoRA adapters (``enable_lora_overlap_loading``) without a GPU.

SGLang's loader runs each copy to the device on its own stream, beside the model, and queries an event to see whether
the copy is complete. On a CPU the copy is complete when the call returns. To make the loading state observable, the
stand-in event reports completion only after the event loop has made a step.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class _Event:
    """An event that completes in the step after the one in which it was recorded."""

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
    """A stand-in of the parts of ``torch.cpu`` or ``torch.cuda`` that the loader uses after its construction."""

    def __init__(self, step: Callable[[], int]) -> None:
        self._step = step

    def Event(self) -> _Event:
        return _Event(self._step)

    @staticmethod
    def current_stream() -> Any:
        return SimpleNamespace(wait_event=lambda event: None)


def install(scheduler: Any) -> None:
    """Give the scheduler's loader this device; does nothing where the scheduler has no loader."""
    if getattr(scheduler, "lora_overlap_loader", None) is None:
        return
    from sglang.srt.lora import lora_overlap_loader

    device = _Device(lambda: scheduler.scripted_scheduler_hook.steps)
    scheduler.lora_overlap_loader.device_module = device
    # Up to 0.5.19 the loader asks CUDA for the current stream, whatever the device is.
    loader: Any = lora_overlap_loader
    loader.torch = SimpleNamespace(cuda=device)
