"""The canary: a seeded fault that each campaign must find; a campaign that does not find it is blind.

Unlike the faults of the catalogue it can be triggered at the end of any request, on each configuration, cache kind and
supported release.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sr_fuzz.faults import fault, triggered, wrapped

# Whether a request triggers the fault depends on its length alone, so that the same script always gives the same
# result. One request in five is rare within a script, and yet nearly each script has such a request.
_EVERY = 5

# Modules import `release_kv_cache` by name; a request ends in one of these.
_MODULES = (
    "sglang.srt.managers.scheduler_components.batch_result_processor",
    "sglang.srt.disaggregation.prefill",
    "sglang.srt.disaggregation.decode",
)


@fault(
    "canary",
    stands_for="KV pages leaked at the end of a request",
    expected=("kv_pages", "sglang_busy_check", "sglang_idle_check"),
)
@contextmanager
def canary() -> Iterator[None]:
    """When a request ends whose length is a multiple of five, one page more than its own leaves the pool."""

    def release(original, req, tree_cache, *args, **kwargs):
        original(req, tree_cache, *args, **kwargs)
        length = len(req.origin_input_ids) + len(req.output_ids)
        if req.finished() and length % _EVERY == 0:
            allocator = tree_cache.token_to_kv_pool_allocator
            if allocator.alloc(allocator.page_size) is not None:
                triggered()

    with ExitStack() as stack:
        for module in _MODULES:
            stack.enter_context(wrapped(importlib.import_module(module), "release_kv_cache", release))
        yield
