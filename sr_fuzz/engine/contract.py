"""What an engine is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sr_fuzz.outcome import Outcome
from sr_fuzz.script import Script


class Engine(Protocol):
    """What plays scripts: each one in a scheduler that no other script has touched."""

    @property
    def sglang_version(self) -> str: ...

    def run(self, script: Script, *, invariants: Sequence[str] | None = None) -> Outcome:
        """Play ``script``. A violation is in the outcome; `EngineError` means that it could not be played."""
        ...
