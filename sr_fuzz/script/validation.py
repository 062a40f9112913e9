"""Checks that types cannot express: fields that exclude or need each other, names that must be unique."""

from __future__ import annotations

from typing import Any

import msgspec

from sr_fuzz.script.actions import OpenSession, StartReq
from sr_fuzz.script.adapters import config_problem, request_problem
from sr_fuzz.script.engine_config import EngineConfig
from sr_fuzz.script.errors import ScriptError
from sr_fuzz.script.explain import short
from sr_fuzz.script.reading import converted
from sr_fuzz.script.script import FORMAT_VERSION, Script
from sr_fuzz.script.wording import one_line


def validate(script: Script, *, source: str = "script") -> Script:
    """Check a script that was built in Python, as `from_json` does. Returns the script, or raises `ScriptError`."""
    try:
        raw = msgspec.to_builtins(script)
    except (TypeError, ValueError, RecursionError) as error:
        raise ScriptError(f"{source}: holds a value that JSON cannot express: {one_line(str(error))}") from None
    return checked(raw, source)


def checked(raw: Any, source: str) -> Script:
    """Convert plain values to a script: check the types first, then what they cannot express."""
    if not isinstance(raw, dict):
        raise ScriptError(f"{source}: expected an object with the fields config, actions, got {short(raw)}")
    found = raw.get("format", FORMAT_VERSION)
    if type(found) is not int or found != FORMAT_VERSION:
        raise ScriptError(
            f"{source}: format: this version of sr_fuzz reads format {FORMAT_VERSION}, the file has {short(found)}"
        )
    script = converted(raw, Script, source)
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
