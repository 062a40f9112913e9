"""Defaults of the optional fields of actions and configurations."""

from __future__ import annotations

from typing import Any

import msgspec


def defaults_of(struct: msgspec.Struct | type[msgspec.Struct]) -> dict[str, Any]:
    """Return the default of each field that has one, in the order of the fields."""
    fields, values = struct.__struct_fields__, struct.__struct_defaults__
    return dict(zip(fields[len(fields) - len(values) :], values, strict=True))
