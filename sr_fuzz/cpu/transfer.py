"""What the prefill half of a disaggregated pair needs without a transfer engine.

SGLang refuses its fake transfer backend for the prefill half as a whole, and takes it for each request that names the
fake bootstrap host, which ours do. What is left of a real backend is the manager that it makes at start, and that would
need a library for remote memory: here it is the fake backend's.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import torch

BACKENDS = {"prefill": "nixl", "decode": "fake"}
"""What each half is started with."""

_BACKEND = "sglang.srt.disaggregation.nixl"
"""One that makes nothing before its manager is made."""


class _NoBootstrapServer:
    """The registry at which the two halves find each other; nobody looks."""

    def __init__(self, *_args: object, **_kwargs: object) -> None: ...


def install() -> None:
    """Idempotent; call it before a scheduler is built. Where the library is installed its part does not change."""
    # The prefill half marks the end of each forward with one, which another process's copies wait for.
    torch.cuda.Event = torch.cpu.Event  # type: ignore[misc]
    if _BACKEND in sys.modules or importlib.util.find_spec("nixl") is not None:
        return
    from sglang.srt.disaggregation import fake

    module = ModuleType(_BACKEND)
    for part in ("Manager", "Sender", "Receiver"):
        setattr(module, f"NixlKV{part}", getattr(fake, f"FakeKV{part}"))
    module.NixlKVBootstrapServer = _NoBootstrapServer  # type: ignore[attr-defined]
    sys.modules[_BACKEND] = module
