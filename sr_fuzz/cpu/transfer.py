"""What one half of a disaggregated pair needs without a transfer engine.

SGLang's decode half takes its fake transfer backend by argument. The prefill half refuses that argument: it gets
another one, which would need a library for remote memory, and whose classes are those of the fake one here.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

BACKENDS = {"prefill": "nixl", "decode": "fake"}
"""What each half is started with."""

_BACKEND = "sglang.srt.disaggregation.nixl"
"""One that makes nothing before its manager is made."""


class _NoBootstrapServer:
    """The registry at which the two halves find each other; nobody looks."""

    def __init__(self, *_args: object, **_kwargs: object) -> None: ...


def _by_itself(all_reduce: Callable[..., Any]) -> Callable[..., Any]:
    """A group of one process has nothing to reduce. Gloo would hand it to a thread, and a forked child has none."""

    @functools.wraps(all_reduce)
    def reduce(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        group = args[1] if len(args) > 1 else kwargs.get("group")
        if torch.distributed.get_world_size(group) == 1 and not (kwargs.get("async_op") or len(args) > 2):
            return None
        return all_reduce(tensor, *args, **kwargs)

    return reduce


def install() -> None:
    """Idempotent; call it before a scheduler is built. Where the library is installed its part does not change."""
    # The prefill half marks the end of each forward with one, which another process's copies wait for.
    torch.cuda.Event = torch.cpu.Event  # type: ignore[misc]
    if _BACKEND in sys.modules or importlib.util.find_spec("nixl") is not None:
        return
    # Releases up to 0.5.22 reduce what the transfers say even where one process has them all.
    torch.distributed.all_reduce = _by_itself(torch.distributed.all_reduce)
    from sglang.srt.disaggregation import fake

    # Up to 0.5.22 the fake backend cannot be asked to compute a prompt again, as a decode half does after a pause.
    if not hasattr(fake.FakeKVManager, "submit_prefill_recompute"):
        fake.FakeKVManager.submit_prefill_recompute = lambda *_args, **_kwargs: None
    module = ModuleType(_BACKEND)
    for part in ("Manager", "Sender", "Receiver"):
        setattr(module, f"NixlKV{part}", getattr(fake, f"FakeKV{part}"))
    module.NixlKVBootstrapServer = _NoBootstrapServer  # type: ignore[attr-defined]
    sys.modules[_BACKEND] = module
