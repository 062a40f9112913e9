"""The definition of a motif."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sr_fuzz.strategies.actions import ScriptBuilder


@dataclass(frozen=True)
class Motif:
    """A named composition of actions."""

    name: str
    why: str
    """The class of bug that it stands for."""
    needs: frozenset[str]
    """It applies to builders with all of these among their `ScriptBuilder.abilities`."""
    weight: int
    play: Callable[[ScriptBuilder], None]

    def add(self, builder: ScriptBuilder) -> None:
        """Play it, and note that the script has it."""
        builder.motifs.add(self.name)
        self.play(builder)


def motif(*needs: str, weight: int = 2) -> Callable[[Callable[[ScriptBuilder], None]], Motif]:
    """Make a motif from a function, with the function's name as its name and the docstring as its ``why``."""

    def make(play: Callable[[ScriptBuilder], None]) -> Motif:
        return Motif(play.__name__, " ".join((play.__doc__ or "").split()), frozenset(needs), weight, play)

    return make
