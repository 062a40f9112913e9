"""Ordinary memory where SGLang asks for pinned memory, which only a GPU can pin.

It asks without looking in places that a CPU reaches too: where it notes down which recurrent states to keep, and where
it describes a batch to its LoRA kernels.
"""

from __future__ import annotations

from typing import Any

import torch

_MAKERS = ("tensor", "zeros")


def install() -> None:
    """Idempotent; does nothing where there is a GPU."""
    if torch.cuda.is_available() or hasattr(torch.tensor, "pinned"):
        return
    replaced: Any = torch
    for name in _MAKERS:
        setattr(replaced, name, _unpinned(getattr(torch, name)))
    replaced.Tensor.pin_memory = lambda self, *args, **kwargs: self


def _unpinned(make: Any) -> Any:
    def made(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        return make(*args, **kwargs)

    made.pinned = False  # type: ignore[attr-defined]
    return made
