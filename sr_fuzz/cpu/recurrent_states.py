"""Recurrent states with an extra buffer on a machine without a GPU.

SGLang lets a request run on while the prefix tree keeps a state of it (``mamba_radix_cache_strategy``
``extra_buffer``) only where its kernels for such layers run. Here the oracle model stands for the layer and keeps the
second state itself (`sr_fuzz.oracle.models.oracle_hybrid`), so the platform is no reason to refuse. Without the buffer
there would be no overlap scheduling with recurrent states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

# Newest first: the check of the platform alone, from 0.5.22 on; before, the whole check of the strategy.
_CHECKS = (
    ("sglang.srt.arg_groups.mamba_hook", "_platform_supports_mamba_cache_extra_buffer"),
    ("sglang.srt.arg_groups.mamba_hook", "validate_mamba_extra_buffer"),
    ("sglang.srt.server_args:ServerArgs", "_validate_mamba_extra_buffer"),
)


@contextlib.contextmanager
def extra_buffer_accepted() -> Iterator[None]:
    """While inside, SGLang's settings do not refuse an extra buffer on this platform."""
    for place, name in _CHECKS:
        holder = _holder(place)
        if hasattr(holder, name):
            with patch.object(holder, name, lambda *args, **kwargs: True):
                yield
            return
    yield


def _holder(place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        holder = __import__(module, fromlist=["_"])
    except ImportError:
        return None
    return getattr(holder, attribute) if attribute else holder
