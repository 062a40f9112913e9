"""A finding: a violation with its minimal script, its signature, and how often it reproduces."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sr_fuzz.outcome.plain_text import make_storable
from sr_fuzz.outcome.violation import Violation
from sr_fuzz.script import Script


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A violation with its minimal script, its signature, and how often it reproduces."""

    signature: str
    script: Script
    violation: Violation
    sglang_version: str
    reproduced: Annotated[int, Meta(ge=0)] = 0
    tried: Annotated[int, Meta(ge=0)] = 0
    original_actions: int = 0
    """Number of actions of the script that first showed the finding."""
    reruns: int = 0
    """Runs that the minimiser used."""
    faults: tuple[str, ...] = ()
    """Seeded faults that were active."""
    sglang_tree: str | None = None
    """Folder of the SGLang source tree that it was found in; None for the installed SGLang and for a release."""
    gone_with: tuple[str, ...] = ()
    """Import paths of the fixes of known bugs with which it is gone, so that these bugs are its cause."""

    def __post_init__(self) -> None:
        make_storable(self, "signature", "sglang_version", "faults", "sglang_tree", "gone_with")

    @property
    def shown_by_none(self) -> bool:
        """Whether it was run again and did not show."""
        return bool(self.tried) and not self.reproduced

    @property
    def reliability(self) -> str:
        return f"{self.reproduced} of {self.tried} fresh runs"
