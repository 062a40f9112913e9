"""A stand-in transfer backend for one half of a disaggregated pair, without a transfer engine.

SGLang's decode half accepts its fake transfer backend as a server argument. The prefill half refuses that argument, so
it gets the name of another backend, which needs a library for remote memory, and whose classes are replaced here by
those of the fake backend.
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
"""The transfer backend that each half is started with."""

_BACKEND = "sglang.srt.disaggregation.nixl"
"""The module of a backend that creates nothing before its manager is created."""


class _NoBootstrapServer:
    """A stand-in of the registry at which the two halves find each other; it is never queried."""

    def __init__(self, *_args: object, **_kwargs: object) -> None: ...


def _by_itself(all_reduce: Callable[..., Any]) -> Callable[..., Any]:
    """Skip the reduction in a group of one process.

    Gloo would run it in a thread, which a forked child does not have.
    """

    @functools.wraps(all_reduce)
    def reduce(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        group = args[1] if len(args) > 1 else kwargs.get("group")
        if torch.distributed.get_world_size(group) == 1 and not (kwargs.get("async_op") or len(args) > 2):
            return None
        return all_reduce(tensor, *args, **kwargs)

    return reduce


def install() -> None:
    """Install the stand-in backend.

    Idempotent; call it before a scheduler is built. An installed library is not replaced.
    """
    # The prefill half records an event at the end of each forward; copies of another process wait for it.
    torch.cuda.Event = torch.cpu.Event  # type: ignore[misc]
    if _BACKEND in sys.modules or importlib.util.find_spec("nixl") is not None:
        return
    # Releases up to 0.5.22 reduce the states of the transfers even where one process has them all.
    torch.distributed.all_reduce = _by_itself(torch.distributed.all_reduce)
    from sglang.srt.disaggregation import fake

    # Up to 0.5.22 the fake backend has no method for the re-bootstrap that a decode half requests after a pause.
    if not hasattr(fake.FakeKVManager, "submit_prefill_recompute"):
        fake.FakeKVManager.submit_prefill_recompute = lambda *_args, **_kwargs: None
    module = ModuleType(_BACKEND)
    for part in ("Manager", "Sender", "Receiver"):
        setattr(module, f"NixlKV{part}", getattr(fake, f"FakeKV{part}"))
    module.NixlKVBootstrapServer = _NoBootstrapServer  # type: ignore[attr-defined]
    sys.modules[_BACKEND] = module
