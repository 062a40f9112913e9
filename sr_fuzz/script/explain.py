"""Explains in one line what is wrong with a file of plain values: field, expected and actual value.

It works with any ``msgspec`` type that a file is read as: scripts, findings, known bugs, reports.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from sr_fuzz.script.wording import did_you_mean

# It comes last in msgspec's message, which quotes before it what the file has.
_PATH = re.compile(r" - at `(?:key in )?\$([^`]*)`\Z")

# The names of all fields of an action, but not those of a configuration, which take half a screen.
_MOST_FIELDS = 16

# Python refuses to write a longer number (`sys.get_int_max_str_digits`), and takes long for one that is nearly as long.
_MOST_BITS = 1000


def explain(error: msgspec.ValidationError, root: type, raw: Any) -> str:
    """Return ``field: expected …, got …``.

    Only the path is taken from msgspec's message; the rest comes from the types.
    """
    whole = _type(root)
    # A message about the outermost object has no path, but the name of a field, which it quotes, may look like one.
    path = "" if isinstance(raw, dict) and _unknown(whole, raw) else _path(error)
    where = f"{path}: " if path else ""
    kind, value = _at(whole, raw, path)
    if isinstance(value, dict) and isinstance(kind, inspect.StructType):
        return where + _field_problem(kind, value)
    if isinstance(value, dict) and isinstance(kind, inspect.UnionType):
        return f"{where}field `action` is missing; expected {_expected(kind)}"
    if isinstance(value, dict) and isinstance(kind, inspect.DictType):
        return f"{where}expected {_expected(kind)}"
    return f"{where}expected {_expected(kind)}, got {short(value)}"


_type = functools.cache(inspect.type_info)  # it reads the annotations of every action anew


def _path(error: msgspec.ValidationError) -> str:
    match = _PATH.search(str(error))
    return match.group(1).lstrip(".").removesuffix("[...]") if match else ""


def _at(root: inspect.Type, raw: Any, path: str) -> tuple[inspect.Type, Any]:
    """Return the type that a script has at ``path``, and the value that is there."""
    kind, value = _narrowed(root, raw), raw
    for index, name in re.findall(r"\[(\d+)\]|(\w+)", path):
        if index:
            kind, value = kind.item_type, value[int(index)]  # type: ignore[attr-defined]
        elif isinstance(kind, inspect.UnionType):
            kind, value = inspect.LiteralType(_tags(kind)), value[name]
        else:
            fields = kind.fields  # type: ignore[attr-defined]
            kind, value = next(f.type for f in fields if f.encode_name == name), value[name]
        kind = _narrowed(kind, value)
    return kind, value


def _narrowed(kind: inspect.Type, value: Any) -> inspect.Type:
    """Return the action type that the tag in ``value`` names; any other type is returned unchanged."""
    if isinstance(kind, inspect.UnionType) and isinstance(value, dict):
        objects = [t for t in kind.types if isinstance(t, inspect.StructType)]
        if objects and objects[0].tag_field is None:
            return objects[0]  # a struct or null
        return next((t for t in objects if t.tag == value.get(t.tag_field)), kind)
    if isinstance(kind, inspect.UnionType) and isinstance(value, list | tuple):
        return next((t for t in kind.types if isinstance(t, inspect.VarTupleType | inspect.ListType)), kind)
    return kind


def _tags(kind: inspect.UnionType) -> tuple[str, ...]:
    return tuple(t.tag for t in kind.types if isinstance(t, inspect.StructType))


def _names(kind: inspect.StructType) -> list[str]:
    return [kind.tag_field] * bool(kind.tag_field) + [f.encode_name for f in kind.fields]


def _unknown(kind: inspect.Type, value: dict[str, Any]) -> list[str]:
    if not isinstance(kind, inspect.StructType) or not kind.forbid_unknown_fields:
        return []
    return [name for name in value if name not in _names(kind)]


def _field_problem(kind: inspect.StructType, value: dict[str, Any]) -> str:
    unknown, names = _unknown(kind, value), _names(kind)
    listed = ", ".join(names[:_MOST_FIELDS])
    if len(names) > _MOST_FIELDS:
        listed += f" and {len(names) - _MOST_FIELDS} more, those of {kind.cls.__module__}.{kind.cls.__name__}"
    told = f"the fields are {listed}"
    if unknown:
        known = told if len(names) <= _MOST_FIELDS else did_you_mean(unknown[0], names, otherwise=told)
        return f"unknown field `{escaped(unknown[0])}`; {known}"
    missing = [f.encode_name for f in kind.fields if f.required and f.encode_name not in value]
    return f"field `{missing[0]}` is missing; {told}" if missing else f"expected {_expected(kind)}"


def _expected(kind: inspect.Type) -> str:
    """Describe a type, with its range or its allowed values."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return (extra or {}).get("description") or _expected(inner)
        case inspect.IntType(gt=above, ge=low, le=high, lt=end):
            low = low if above is None else above + 1
            return f"a whole number{_range(None, low, high if end is None else end - 1, None)}"
        case inspect.FloatType(gt=above, ge=low, le=high, lt=end):
            return f"a number{_range(above, low, high, end)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case inspect.StrType():
            return "a text"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.VarTupleType(item_type=item, max_length=most) | inspect.ListType(item_type=item, max_length=most):
            return f"a list{f' of at most {most} items' if most is not None else ''}, each {_expected(item)}"
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)} items: {', '.join(map(_expected, items))}"
        case inspect.DictType(value_type=item):
            return f"an object in which each value is {_expected(item)}"
        case inspect.StructType():
            names = _names(kind)
            more = f" and {len(names) - _MOST_FIELDS} more" if len(names) > _MOST_FIELDS else ""
            return f"an object with the fields {', '.join(names[:_MOST_FIELDS])}{more}"
        case inspect.UnionType(types=types) if any(isinstance(t, inspect.NoneType) for t in types):
            return f"{_expected(types[0])}, or null"
        case inspect.UnionType():
            return f"an object whose `action` is one of {', '.join(_tags(kind))}"
        case _:
            return "another value"


def _range(above: float | None, low: float | None, high: float | None, below: float | None) -> str:
    """Return the words for a range of which any end may be open or missing."""
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if isinstance(low, float) else f" from {low} to {high}"
    ends = (("above", above), ("from", low), ("up to", high), ("below", below))
    said = [f"{word} {limit:g}" for word, limit in ends if limit is not None]
    return f" {' and '.join(said)}" if said else ""


def short(value: Any) -> str:
    """Return a value as in the file, as one short line; for a list or an object only its kind."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} items"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return "a number of some hundred digits or more"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def escaped(name: str) -> str:
    return short(name)[1:-1]


def unwritable(raw: Any) -> str | None:
    """Return what a file of plain values has that no file can be written with, with its field; None if nothing.

    That is a text with half of a character (a surrogate without its other half), a whole number of more than 64 bits,
    and a number that is not finite.
    """
    for path, value in _leaves(raw):
        if isinstance(value, str) and not _is_text(value):
            return f"{path}{short(value)} has half of a character in it"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{path}expected a whole number of at most 64 bits, got {short(value)}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{path}expected a finite number, got {short(value)}"
    return None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leaves(raw: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names of fields and the values in it, each with its path as the head of a message."""
    # No recursion, since a file may be nested as deeply as its parser allows.
    left: list[tuple[str, Any]] = [("", raw)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            yield from ((f"{path}: " if path else "", name) for name in value)
            left += [(f"{path}.{escaped(name)}".lstrip(".")[-_MOST_PATH:], each) for name, each in value.items()]
        elif isinstance(value, list | tuple):
            left += [(f"{path}[{index}]"[-_MOST_PATH:], each) for index, each in enumerate(value)]
        else:
            yield f"{path}: " if path else "", value


# Longer than any path of a valid file; the end of a longer one says where it is.
_MOST_PATH = 100
