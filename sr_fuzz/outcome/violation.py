"""A violation: one invariant broken at one step."""

from __future__ import annotations

from typing import Literal

import msgspec

from sr_fuzz.outcome.plain_text import make_storable

When = Literal["step", "settled", "end"]


class Violation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One invariant broken at one step."""

    invariant: str
    """Name of the invariant, or ``exception``, ``crash`` or ``hang`` for a failure of the engine itself."""
    rule: str
    """The part of the invariant that was violated; stable text without numbers (``leaked``, ``AssertionError`` …)."""
    message: str
    """What was observed and what was expected, with page numbers and request names."""
    step: int
    when: When = "step"
    location: tuple[str, ...] = ()
    """Innermost code locations inside SGLang, innermost first: ``managers/scheduler.py:run_batch: <source line>``."""
    stack: str = ""
    """The Python stack, if there is one."""

    def __post_init__(self) -> None:
        make_storable(self, "invariant", "rule", "message", "location", "stack")
