"""What campaigns have searched: cells, faces, reach, and what each configuration and motif has yielded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from sr_fuzz.play.reach_kinds import add_reach

STATE_FORMAT = 1
"""Format version of the state; raised whenever an old file would be read with another meaning."""

_MOST_NIGHTS = 100
"""Nights that are kept one by one; the totals hold all of them."""

_MOST_SPEEDS = 600
"""Measured speeds of a night that are kept: one a minute for ten hours."""

_MOST_FACES = 5000
"""Faces that are kept; a night of bugs has some hundred."""


class Origin(NamedTuple):
    """What a script was made from."""

    config: str
    """Name of the configuration."""
    motifs: tuple[str, ...]


class Night(msgspec.Struct):
    """One campaign."""

    started: str
    """ISO 8601, in UTC."""
    sglang_version: str
    seed: int
    rounds: int = 0
    scripts: int = 0
    steps: int = 0
    elapsed_s: float = 0.0
    new_cells: int = 0
    speeds: list[float] = []
    """Scripts a second, minute by minute."""


class Yield(msgspec.Struct):
    """What the scripts of one configuration, or those with one motif, have yielded."""

    scripts: int = 0
    new_cells: int = 0
    new_faces: int = 0
    findings: int = 0
    """Those that were seen first in such a script, suspects included."""
    suspects: int = 0


class State(msgspec.Struct):
    """What was searched so far."""

    format: int = STATE_FORMAT
    nights: list[Night] = []
    """The last ones."""
    scripts: int = 0
    steps: int = 0
    configs: dict[str, Yield] = {}
    """By name."""
    motifs: dict[str, Yield] = {}
    """By name; a script with three motifs counts for each of them."""
    cells: dict[str, int] = {}
    """In how many scripts each cell was reached."""
    faces: dict[str, int] = {}
    """How often each face of a violation was seen, by ``signature | face``."""
    reach: dict[str, int] = {}


class Record:
    """Counts what a campaign does into the state."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state if state is not None else State()

    def begin(self, night: Night) -> None:
        """Add a night, which its campaign fills in."""
        self.state.nights.append(night)
        del self.state.nights[:-_MOST_NIGHTS]

    @property
    def night(self) -> Night:
        """The campaign that is under way, or was the last one."""
        return self.state.nights[-1]

    def add_run(self, origin: Origin, steps: int, cells: Iterable[str], reach: dict[str, int]) -> int:
        """Count a script; returns how many of its cells are new."""
        state, night = self.state, self.night
        new = 0
        for cell in cells:
            new += cell not in state.cells
            state.cells[cell] = state.cells.get(cell, 0) + 1
        for total in (state, night):
            total.scripts += 1
            total.steps += steps
        night.new_cells += new
        add_reach(state.reach, reach)
        for own in self._yields(origin):
            own.scripts += 1
            own.new_cells += new
        return new

    def add_face(self, origin: Origin, found: str, face: str) -> bool:
        """Count a violation; returns whether its face is new."""
        key, faces = f"{found} | {face}", self.state.faces
        if key not in faces and len(faces) >= _MOST_FACES:
            return False
        faces[key] = faces.get(key, 0) + 1
        if faces[key] > 1:
            return False
        for own in self._yields(origin):
            own.new_faces += 1
        return True

    def add_finding(self, origin: Origin, *, suspect: bool) -> None:
        """Count a finding that nobody knew."""
        for own in self._yields(origin):
            own.findings += 1
            own.suspects += suspect

    def add_speed(self, scripts_per_s: float) -> None:
        """Note the speed of the last minute."""
        if len(self.night.speeds) < _MOST_SPEEDS:
            self.night.speeds.append(round(scripts_per_s, 2))

    def _yields(self, origin: Origin) -> Iterator[Yield]:
        yield self.state.configs.setdefault(origin.config, Yield())
        for motif in origin.motifs:
            yield self.state.motifs.setdefault(motif, Yield())
