"""All names that a test file written for SGLang's scripted runtime imports, in one module.

Only the imports from ``sglang.test.scripted_runtime…`` and ``sglang.test.scripted_runtime_chunked_helpers`` have to be
changed to this module; docs/scripted-runtime.md lists the names. The script functions of such a file also run on the
local engine, as ``LocalEngine.execute("module:function", …)``.

A file that also imports other modules of SGLang must import this one first: without a GPU they cannot be imported
before it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sr_fuzz.cpu.import_hook import mend_when_imported
from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.runtime.helpers import (
    BALLAST_MAX_NEW_TOKENS,
    DEFAULT_CHUNK_SIZE,
    DEFAULT_MAX_STEPS,
    LIFECYCLE_STAGES,
    SMALL_KV_POOL_BALLAST_MAX_NEW_TOKENS,
    SMALL_KV_POOL_BALLAST_PROMPT_LEN,
    SMALL_KV_POOL_MAX_TOTAL_TOKENS,
    SMALL_MODEL,
    advance_to_decode_step,
    advance_to_lifecycle_stage,
    advance_to_nth_chunk,
    base_engine_kwargs,
    drain_until_released,
    exhaust_row_pool,
    run_until,
    run_until_all_finished,
    run_until_finished,
    warmup_radix,
)
from sr_fuzz.runtime.hook import ScriptedBatchRecord
from sr_fuzz.runtime.req_handle import ScriptedReqHandle
from sr_fuzz.testing.test_case import CustomTestCase, ScriptedTestCase

if TYPE_CHECKING:
    from sr_fuzz.engine.live.server import ScriptedHttpServer
    from sr_fuzz.runtime.http_poster import BackgroundHttpPoster
    from sr_fuzz.runtime.tokenizer_recv_proxy import ScriptedTokenizerRecvProxy

# Imported on first use: a scheduler process imports a test file for its script functions and needs no server.
_LAZY = {
    "BackgroundHttpPoster": "sr_fuzz.runtime.http_poster",
    "ScriptedHttpServer": "sr_fuzz.engine.live.server",
    "ScriptedTokenizerRecvProxy": "sr_fuzz.runtime.tokenizer_recv_proxy",
}

__all__ = [
    "BALLAST_MAX_NEW_TOKENS",
    "DEFAULT_CHUNK_SIZE",
    "DEFAULT_MAX_STEPS",
    "LIFECYCLE_STAGES",
    "SMALL_KV_POOL_BALLAST_MAX_NEW_TOKENS",
    "SMALL_KV_POOL_BALLAST_PROMPT_LEN",
    "SMALL_KV_POOL_MAX_TOTAL_TOKENS",
    "SMALL_MODEL",
    "BackgroundHttpPoster",
    "CustomTestCase",
    "ScriptedBatchRecord",
    "ScriptedContext",
    "ScriptedHttpServer",
    "ScriptedReqHandle",
    "ScriptedTestCase",
    "ScriptedTokenizerRecvProxy",
    "advance_to_decode_step",
    "advance_to_lifecycle_stage",
    "advance_to_nth_chunk",
    "base_engine_kwargs",
    "drain_until_released",
    "exhaust_row_pool",
    "run_until",
    "run_until_all_finished",
    "run_until_finished",
    "warmup_radix",
]

mend_when_imported()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
