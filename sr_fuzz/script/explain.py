"""Explains in one line what is wrong with a file of plain values: field, expected and actual value.

It works with any ``msgspec`` type; scripts are the only use.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import inspect

_PATH = re.compile(r" - at `\$(.*)`$")


def explain(error: msgspec.ValidationError, root: type, raw: Any) -> str:
    """Return ``field: expected …, got …``.

    Only the path is taken from msgspec's message; the rest comes from the types.
    """
    match = _PATH.search(str(error))
    path = match.group(1).lstrip(".") if match else ""
    where = f"{path}: " if path else ""
    kind, value = _at(root, raw, path)
    if isinstance(value, dict) and isinstance(kind, inspect.StructType):
        return where + _field_problem(kind, value)
    if isinstance(value, dict) and isinstance(kind, inspect.UnionType):
        return f"{where}field `action` is missing; expected {_expected(kind)}"
    return f"{where}expected {_expected(kind)}, got {short(value)}"


def _at(root: type, raw: Any, path: str) -> tuple[inspect.Type, Any]:
    """Return the type that a script has at ``path``, and the value that is there."""
    kind: inspect.Type = inspect.type_info(root)
    value = raw
    for index, name in re.findall(r"\[(\d+)\]|([A-Za-z_]+)", path):
        if index:
            kind, value = kind.item_type, value[int(index)]
        elif isinstance(kind, inspect.UnionType):
            kind, value = inspect.LiteralType(_tags(kind)), value[name]
        else:
            kind, value = next(f.type for f in kind.fields if f.name == name), value[name]
        kind = _narrowed(kind, value)
    return kind, value


def _narrowed(kind: inspect.Type, value: Any) -> inspect.Type:
    """Return the action type that the tag in ``value`` names; any other type is returned unchanged."""
    if isinstance(kind, inspect.UnionType) and isinstance(value, dict):
        objects = [t for t in kind.types if isinstance(t, inspect.StructType)]
        if objects and objects[0].tag_field is None:
            return objects[0]  # a struct or null
        return next((t for t in objects if t.tag == value.get(t.tag_field)), kind)
    return kind


def _tags(kind: inspect.UnionType) -> tuple[str, ...]:
    return tuple(t.tag for t in kind.types)


def _field_problem(kind: inspect.StructType, value: dict[str, Any]) -> str:
    known = [kind.tag_field] * bool(kind.tag_field) + [f.name for f in kind.fields]
    unknown = [name for name in value if name not in known]
    missing = [f.name for f in kind.fields if f.required and f.name not in value]
    problem = f"unknown field `{escaped(unknown[0])}`" if unknown else f"field `{missing[0]}` is missing"
    return f"{problem}; the fields are {', '.join(known)}"


def _expected(kind: inspect.Type) -> str:
    """Describe a type, with its range or its allowed values."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return (extra or {}).get("description") or _expected(inner)
        case inspect.IntType(ge=low, le=high, lt=end):
            return f"a whole number from {low} to {high if end is None else end - 1}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low:g} to {high:g}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(values)}"
        case inspect.VarTupleType(item_type=item, max_length=most):
            return f"a list of at most {most} items, each {_expected(item)}"
        case inspect.StructType(fields=fields):
            return f"an object with the fields {', '.join(f.name for f in fields)}"
        case inspect.UnionType(types=types) if any(isinstance(t, inspect.NoneType) for t in types):
            return f"{_expected(types[0])}, or null"
        case _:
            return f"an object whose `action` is one of {', '.join(_tags(kind))}"


def short(value: Any) -> str:
    """Return a value as in the file, as one short line; for a list or an object only its kind."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} items"
    if isinstance(value, dict):
        return "an object"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def escaped(name: str) -> str:
    return short(name)[1:-1]
