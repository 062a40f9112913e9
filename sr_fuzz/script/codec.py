"""The JSON form of scripts, lossless in both directions, and their content hash.

A file of another format is refused.
"""

from __future__ import annotations

import hashlib

import msgspec

from sr_fuzz.script.reading import parsed
from sr_fuzz.script.script import Script
from sr_fuzz.script.validation import checked


def to_json(script: Script, *, indent: int = 0) -> bytes:
    """Encode a script, with ``indent`` spaces per level; 0 makes it compact."""
    data = msgspec.json.encode(script)
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def from_json(data: bytes | str, *, source: str = "script") -> Script:
    """Decode and validate a script. Raises `ScriptError`, one line: source, field, expected and actual value."""
    return checked(parsed(data, source), source)


def script_hash(script: Script) -> str:
    """Return a stable content hash: 16 hex digits of the SHA-256 of the canonical JSON form (keys sorted)."""
    canonical = msgspec.json.encode(msgspec.to_builtins(script), order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:16]
