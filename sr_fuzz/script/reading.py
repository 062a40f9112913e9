"""Reading JSON that others may have written: it is of the type asked for, or one line says why not."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from sr_fuzz.script.errors import ScriptError
from sr_fuzz.script.explain import escaped, explain, unwritable
from sr_fuzz.script.wording import one_line

Read = TypeVar("Read")


def parsed(data: bytes | str, source: str) -> Any:
    """Return the plain values in JSON: UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises `ScriptError`, one line that begins with ``source``.
    """
    try:
        # The standard decoder is used instead of msgspec's because its errors name line and column, and because it
        # accepts NaN, which is then refused with the name of its field.
        return json.loads(data, object_pairs_hook=_refuse_repeated_fields)
    except ScriptError as error:
        raise ScriptError(f"{source}: {error}") from None
    except RecursionError:
        raise ScriptError(f"{source}: nested too deeply to be a script") from None
    except ValueError as error:
        raise ScriptError(f"{source}: not JSON: {one_line(str(error))}") from None


def _refuse_repeated_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ScriptError(f"field `{escaped(name)}` is given twice in one object")
        fields[name] = value
    return fields


def converted(raw: Any, kind: type[Read], source: str) -> Read:
    """Return plain values as ``kind``. Raises `ScriptError`, one line: source, field, expected and actual value."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise ScriptError(f"{source}: {explain(error, kind, raw)}") from None
    except UnicodeEncodeError:
        # Of the name of a field, or of a text that must be one of a few.
        raise ScriptError(f"{source}: {unwritable(raw)}") from None


def refuse_unwritable(raw: Any, source: str) -> None:
    """Raise `ScriptError` if something could be read of which no file can be written; see `unwritable`.

    A script needs no such check: it has only numbers with limits and texts of a few letters.
    """
    problem = unwritable(raw)
    if problem is not None:
        raise ScriptError(f"{source}: {problem}")
