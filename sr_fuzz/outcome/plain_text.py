"""Text of others (SGLang's messages, its log, paths) in a form that can be stored and shown.

A lone surrogate, as Python makes it of a byte that is not UTF-8, fits into no JSON or msgpack. A control character on a
terminal can change its colours or overwrite what was said before.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.structs import force_setattr

from sr_fuzz.script.wording import escaped

_STAY = "\n\t"
"""What is not printable and stays, since a report has lines and a stack has columns."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def storable(text: str) -> str:
    """Return ``text`` with lone surrogates written as escapes; any other text is returned unchanged."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def make_storable(struct: _Struct, *fields: str) -> None:
    """Replace these fields of a new, frozen struct, strings or tuples of strings, by what can be stored."""
    for field in fields:
        value = getattr(struct, field)
        kept = tuple(map(storable, value)) if isinstance(value, tuple) else storable(value) if value else value
        if kept != value:
            force_setattr(struct, field, kept)


def printable(text: str) -> str:
    """Return ``text`` with each character that a terminal would obey or that has no shape written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c in _STAY else escaped(c) for c in text)
