"""Scripts: a script is an engine configuration and a list of actions, as immutable data.

A script is the data that the rooms of this project exchange: strategies generate it, engines play it, the minimiser
shortens it, the repro writer prints it. It does not depend on an engine.

It has three forms, all lossless except the last:

* Python values, frozen ``msgspec`` structs: `Script`, `EngineConfig`, and the actions;
* JSON, through `to_json` and `from_json`; a file has a ``format``, and a file of another format is refused;
* one line of text, through `sr_fuzz.script.text`, for logs and reports.
"""

from __future__ import annotations

from sr_fuzz.script.actions import (
    EOS_TOKEN_ID,
    EXHAUSTERS,
    STAGES,
    VOCAB_SIZE,
    Abort,
    AbortAll,
    Action,
    AdvanceClock,
    CloseSession,
    Continue,
    EvictRadix,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    OpenSession,
    Pause,
    Prompt,
    Release,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)
from sr_fuzz.script.codec import from_json, script_hash, to_json
from sr_fuzz.script.engine_config import SCHEDULE_POLICIES, EngineConfig
from sr_fuzz.script.errors import ScriptError
from sr_fuzz.script.script import FORMAT_VERSION, MAX_ACTIONS, Script
from sr_fuzz.script.validation import validate

__all__ = [
    "Abort", "AbortAll", "Action", "AdvanceClock", "CloseSession", "Continue", "EOS_TOKEN_ID", "EXHAUSTERS",
    "EngineConfig", "EvictRadix", "ExhaustKv", "ExhaustLockRefs", "ExhaustRows", "FORMAT_VERSION", "FlushCache",
    "MAX_ACTIONS", "OpenSession", "Pause", "Prompt", "Release", "SCHEDULE_POLICIES", "STAGES", "Script",
    "ScriptError", "SessionParams", "StartReq", "Step", "StepUntil", "VOCAB_SIZE", "from_json", "script_hash",
    "to_json", "validate",
]  # fmt: skip
"""The names with which scripts are written; emitted tests import them from here."""
