"""Recurrent states with an extra buffer on a machine without a GPU.

The strategy ``extra_buffer`` (``mamba_radix_cache_strategy``) lets a request continue while the prefix tree keeps one
of its states. SGLang accepts it only on platforms that run its kernels for such layers. Here the oracle model replaces
the layer and keeps the second state itself (`sr_fuzz.oracle.models.oracle_hybrid`), so it works on any platform.
Without the buffer, overlap scheduling could not be tested with recurrent states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

# Newest first: from 0.5.22 on, the check of the platform alone; before that, the whole check of the strategy.
_CHECKS = (
    ("sglang.srt.arg_groups.mamba_hook", "_platform_supports_mamba_cache_extra_buffer"),
    ("sglang.srt.arg_groups.mamba_hook", "validate_mamba_extra_buffer"),
    ("sglang.srt.server_args:ServerArgs", "_validate_mamba_extra_buffer"),
)


@contextlib.contextmanager
def extra_buffer_accepted() -> Iterator[None]:
    """While the context is active, SGLang's settings do not refuse an extra buffer on this platform."""
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
