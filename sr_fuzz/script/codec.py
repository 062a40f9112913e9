"""The JSON form of scripts, lossless in both directions, and their content hash.

A file of another format is refused.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from sr_fuzz.script.errors import ScriptError
from sr_fuzz.script.explain import escaped
from sr_fuzz.script.script import Script
from sr_fuzz.script.validation import checked


def to_json(script: Script, *, indent: int = 0) -> bytes:
    """Encode a script, with ``indent`` spaces per level; 0 makes it compact."""
    data = msgspec.json.encode(script)
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def from_json(data: bytes | str, *, source: str = "script") -> Script:
    """Decode and validate a script. Raises `ScriptError`, one line: source, field, expected and actual value."""
    try:
        # The standard decoder is used instead of msgspec's because its errors name line and column, and because it
        # accepts NaN, which is then refused with the name of its field.
        raw = json.loads(data, object_pairs_hook=_refuse_repeated_fields)
    except ScriptError as error:
        raise ScriptError(f"{source}: {error}") from None
    except RecursionError:
        raise ScriptError(f"{source}: nested too deeply to be a script") from None
    except ValueError as error:
        raise ScriptError(f"{source}: not JSON: {error}") from None
    return checked(raw, source)


def _refuse_repeated_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ScriptError(f"field `{escaped(repeated)}` is given twice in one object")
    return fields


def script_hash(script: Script) -> str:
    """Return a stable content hash: 16 hex digits of the SHA-256 of the canonical JSON form (keys sorted)."""
    canonical = msgspec.json.encode(msgspec.to_builtins(script), order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:16]
