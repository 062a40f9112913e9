"""What a motif is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sr_fuzz.strategies.actions import ScriptBuilder


@dataclass(frozen=True)
class Motif:
    """A named composition."""

    name: str
    why: str
    """What class of bug it stands for."""
    needs: frozenset[str]
    """It applies to drafts with all of these among their `ScriptBuilder.abilities`."""
    weight: int
    play: Callable[[ScriptBuilder], None]


def motif(*needs: str, weight: int = 2) -> Callable[[Callable[[ScriptBuilder], None]], Motif]:
    """Make a motif of a function: its name is the name, its docstring says why."""

    def make(play: Callable[[ScriptBuilder], None]) -> Motif:
        return Motif(play.__name__, " ".join((play.__doc__ or "").split()), frozenset(needs), weight, play)

    return make
