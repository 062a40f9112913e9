"""Scripts: an engine configuration and a list of actions, as immutable data.

A script is the only thing that travels between the rooms of this project: strategies make it, engines run it,
the minimiser shortens it, the repro writer prints it. It knows no engine.

Three forms, all lossless except the last:

* Python values, frozen ``msgspec`` structs: `Script`, `EngineConfig`, and the actions of `sr_fuzz.actions`;
* JSON, through `to_json` and `from_json`; a file carries ``format``, and a file of another format is refused;
* one line of text, through `sr_fuzz.script_text`, for logs and reports.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sr_fuzz.actions import (
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
)  # fmt: skip
from sr_fuzz.adapters import config_problem, request_problem
from sr_fuzz.engine_config import SCHEDULE_POLICIES, EngineConfig
from sr_fuzz.script_errors import escaped, explain, short

__all__ = [
    "Abort", "AbortAll", "Action", "AdvanceClock", "CloseSession", "Continue", "EOS_TOKEN_ID", "EXHAUSTERS",
    "EngineConfig", "EvictRadix", "ExhaustKv", "ExhaustLockRefs", "ExhaustRows", "FORMAT_VERSION", "FlushCache",
    "MAX_ACTIONS", "OpenSession", "Pause", "Prompt", "Release", "SCHEDULE_POLICIES", "STAGES", "Script",
    "ScriptError", "SessionParams", "StartReq", "Step", "StepUntil", "VOCAB_SIZE", "from_json", "script_hash",
    "to_json", "validate",
]  # fmt: skip
"""What scripts are written with; emitted tests import it from here."""

FORMAT_VERSION = 1
"""Raised whenever an old file would be read with another meaning."""

# A longer script says nothing that a shorter one cannot, and its trace no longer fits in a report.
MAX_ACTIONS = 500


class ScriptError(ValueError):
    """A script that cannot be read or makes no sense. The message is one line and names the field."""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine configuration and the actions to play on it."""

    config: EngineConfig
    actions: Annotated[tuple[Action, ...], Meta(max_length=MAX_ACTIONS)]
    format: int = FORMAT_VERSION

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the requests it starts, in order."""
        return tuple(a.name for a in self.actions if isinstance(a, StartReq))

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions that it opens, each once, in order."""
        return tuple(dict.fromkeys(a.name for a in self.actions if isinstance(a, OpenSession)))

    @property
    def uses_exhausters(self) -> bool:
        return any(isinstance(a, EXHAUSTERS) for a in self.actions)


def to_json(script: Script, *, indent: int = 0) -> bytes:
    """Encode; ``indent`` spaces a level make it readable, 0 makes it compact."""
    data = msgspec.json.encode(script)
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def from_json(data: bytes | str, *, source: str = "script") -> Script:
    """Decode and validate. Raises `ScriptError`, one line: source, field, what is expected, what is there."""
    try:
        # Not msgspec's decoder: the standard one names line and column, and lets NaN through to where it is refused
        # by the name of its field.
        raw = json.loads(data, object_pairs_hook=_refuse_repeated_fields)
    except ScriptError as error:
        raise ScriptError(f"{source}: {error}") from None
    except RecursionError:
        raise ScriptError(f"{source}: nested too deeply to be a script") from None
    except ValueError as error:
        raise ScriptError(f"{source}: not JSON: {error}") from None
    return _checked(raw, source)


def validate(script: Script, *, source: str = "script") -> Script:
    """Check a script that was built in Python as `from_json` would. Returns the script, or raises `ScriptError`."""
    try:
        raw = msgspec.to_builtins(script)
    except (TypeError, ValueError, RecursionError) as error:
        raise ScriptError(f"{source}: holds a value that JSON cannot express: {error}") from None
    return _checked(raw, source)


def _refuse_repeated_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ScriptError(f"field `{escaped(repeated)}` is given twice in one object")
    return fields


def _checked(raw: Any, source: str) -> Script:
    """Turn plain values into a script: first the types, then what they cannot say."""
    if not isinstance(raw, dict):
        raise ScriptError(f"{source}: expected an object with the fields config, actions, got {short(raw)}")
    found = raw.get("format", FORMAT_VERSION)
    if type(found) is not int or found != FORMAT_VERSION:
        raise ScriptError(
            f"{source}: format: this version of sr_fuzz reads format {FORMAT_VERSION}, the file has {short(found)}"
        )
    try:
        script = msgspec.convert(raw, Script)
    except msgspec.ValidationError as error:
        raise ScriptError(f"{source}: {explain(error, Script, raw)}") from None
    _check_config(script.config, source)
    _check_requests(script, source)
    _check_sessions(script, source)
    return script


def _check_config(config: EngineConfig, source: str) -> None:
    page = config.page_size
    if config.max_total_tokens % page:
        raise ScriptError(
            f"{source}: config.max_total_tokens: expected a multiple of page_size {page}, got {config.max_total_tokens}"
        )
    chunk = config.chunked_prefill_size
    if chunk == 0 or chunk > 0 and chunk % page:
        raise ScriptError(
            f"{source}: config.chunked_prefill_size: expected -1 (off) or a multiple of page_size {page}, got {chunk}"
        )
    if config.retraction_policy == "priority" and not config.enable_priority_scheduling:
        raise ScriptError(
            f"{source}: config.retraction_policy: priority needs enable_priority_scheduling, which is false"
        )
    problem = config_problem(config)
    if problem is not None:
        raise ScriptError(f"{source}: config.{problem}")


def _check_requests(script: Script, source: str) -> None:
    seen: dict[str, int] = {}
    for index, action in enumerate(script.actions):
        if not isinstance(action, StartReq):
            continue
        where = f"{source}: actions[{index}]"
        if action.name in seen:
            raise ScriptError(
                f"{where}.name: {action.name} is already started by actions[{seen[action.name]}]; "
                "a name stands for one request"
            )
        seen[action.name] = index
        length, tail = action.prompt.length, action.prompt.unique_tail
        if tail > length:
            raise ScriptError(f"{where}.prompt.unique_tail: expected 0 to the prompt's length {length}, got {tail}")
        after = action.prompt.after
        if after is not None and seen.get(after, index) == index:
            raise ScriptError(f"{where}.prompt.after: expected a request started before {action.name}, got {after}")
        if after is not None and action.prompt.uniform:
            raise ScriptError(f"{where}.prompt.after: expected none, since the prompt is uniform, got {after}")
        if tail and action.prompt.uniform:
            raise ScriptError(f"{where}.prompt.unique_tail: expected 0, since the prompt is uniform, got {tail}")


def _check_sessions(script: Script, source: str) -> None:
    started = set(script.names)
    for index, action in enumerate(script.actions):
        if isinstance(action, StartReq):
            _check_kind(action, script.config, f"{source}: actions[{index}]")
        if not isinstance(action, OpenSession):
            continue
        where = f"{source}: actions[{index}]"
        if action.name in started:
            raise ScriptError(f"{where}.name: {action.name} is a request of this script; a session needs another name")
        if action.streaming and not script.config.enable_streaming_session:
            raise ScriptError(
                f"{where}.streaming: true needs config.enable_streaming_session, which is false: the server refuses it"
            )


def _check_kind(action: StartReq, config: EngineConfig, where: str) -> None:
    problem = request_problem(action.lora_path, config)
    if problem is not None:
        raise ScriptError(f"{where}.lora_path: {problem}")
    if action.n > 1 and action.session is not None:
        raise ScriptError(f"{where}.n: expected 1, since the request belongs to a session, got {action.n}")
    if not config.is_embedding:
        return
    if action.n > 1:
        raise ScriptError(f"{where}.n: expected 1, since config.is_embedding is true, got {action.n}")
    if action.session is not None:
        raise ScriptError(f"{where}.session: expected null, since config.is_embedding is true, got an object")


def script_hash(script: Script) -> str:
    """A stable content hash: 16 hex digits of the SHA-256 of the canonical JSON form (keys sorted)."""
    canonical = msgspec.json.encode(msgspec.to_builtins(script), order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:16]
