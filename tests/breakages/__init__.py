"""Breakages: for rules that no seeded fault and no known bug breaks, what breaks them. See `breaking`."""

from __future__ import annotations

from tests.breakages import adapters, lifecycle, messages, pools, sessions, tree  # noqa: F401
from tests.breakages.breaking import BREAKAGES, Breakage, broken_as_told

__all__ = ["BREAKAGES", "Breakage", "broken_as_told"]
