"""A patch that allocates ordinary memory where SGLang asks for pinned memory, which needs a GPU.

SGLang asks for pinned memory unconditionally in two places that also run on a CPU: where it records which recurrent
states to keep, and where it describes a batch to its LoRA kernels.
"""

from __future__ import annotations

from typing import Any

import torch

_MAKERS = ("tensor", "zeros")


def install() -> None:
    """Apply the patch. Idempotent; does nothing where there is a GPU."""
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
