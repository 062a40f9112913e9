"""The store: the folder in which one night goes on from the last one.

::

    findings/<name>/   one finding each, see `sr_fuzz.campaign.finding_folder`; beside them unfinished/, not-reproduced/
    trouble/           scripts that could not be played
    state/nights.json  what was searched so far

All are small texts that are written atomically. ``findings/`` and ``state/`` are made to be committed, or kept between
the jobs of a CI.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sr_fuzz.campaign.order import RoundResult
from sr_fuzz.lifetime import locks
from sr_fuzz.outcome.writing import remove_abandoned, write_whole
from sr_fuzz.play.reach_kinds import add_reach

STATE_FORMAT = 1
"""Format version of the state; raised whenever an old file would be read with another meaning."""

_MOST_NIGHTS = 100
"""Nights that are kept one by one; the totals hold all of them."""

_MOST_SPEEDS = 600
"""Measured speeds of a night that are kept: one a minute for ten hours."""

_MOST_FACES = 5000
"""Faces that are kept; a night of bugs has some hundred."""


class StoreError(Exception):
    """The store cannot be used. The message is one line that names the file and says what to do."""


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
    """What the rounds of one group of configurations have yielded."""

    rounds: int = 0
    scripts: int = 0
    new_cells: int = 0
    new_faces: int = 0


class State(msgspec.Struct):
    """What was searched so far."""

    format: int = STATE_FORMAT
    nights: list[Night] = []
    """The last ones."""
    scripts: int = 0
    steps: int = 0
    yields: dict[str, Yield] = {}
    """By the names of the configurations of a round."""
    cells: dict[str, int] = {}
    """In how many scripts each cell was reached."""
    faces: dict[str, int] = {}
    """How often each face of a violation was seen, by ``signature | face``."""
    reach: dict[str, int] = {}


class Store:
    """A folder that one campaign at a time writes to."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if needed, and take it. Raises `StoreError`, `OSError`."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        lock = locks.try_hold(folder / ".lock")
        if lock is None:
            raise StoreError(f"{folder}: another campaign writes to this store; wait for its end, or take another one")
        self._lock = lock
        try:
            self.state = self._read()
        except BaseException:
            self.close()
            raise

    @property
    def findings(self) -> Path:
        return self.folder / "findings"

    @property
    def file(self) -> Path:
        """Where the state is."""
        return self.folder / "state" / "nights.json"

    def _read(self) -> State:
        self.file.parent.mkdir(exist_ok=True)
        remove_abandoned(self.file.parent)
        if not self.file.exists():
            return State()
        try:
            raw = msgspec.json.decode(self.file.read_bytes())
            found = raw.get("format") if isinstance(raw, dict) else None
            if found == STATE_FORMAT:
                return msgspec.convert(raw, State)
            why = f"its format is {found}, and this version of sr_fuzz reads {STATE_FORMAT}"
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            why = str(error).partition("\n")[0]
        raise StoreError(f"{self.file}: cannot be read: {why}; remove it to begin anew, the findings stay")

    def begin(self, night: Night) -> None:
        """Add a night, which its campaign fills in."""
        self.state.nights.append(night)
        del self.state.nights[:-_MOST_NIGHTS]

    def add_run(self, steps: int, cells: tuple[str, ...], reach: dict[str, int]) -> int:
        """Count a script; returns how many of its cells are new."""
        state = self.state
        state.scripts += 1
        state.steps += steps
        new = sum(cell not in state.cells for cell in cells)
        for cell in cells:
            state.cells[cell] = state.cells.get(cell, 0) + 1
        add_reach(state.reach, reach)
        night = state.nights[-1]
        night.scripts, night.steps, night.new_cells = night.scripts + 1, night.steps + steps, night.new_cells + new
        return new

    def add_face(self, found: str, face: str) -> bool:
        """Count a violation; returns whether its face is new."""
        key, faces = f"{found} | {face}", self.state.faces
        if key not in faces and len(faces) >= _MOST_FACES:
            return False
        faces[key] = faces.get(key, 0) + 1
        return faces[key] == 1

    def add_round(self, result: RoundResult) -> None:
        """Count what a round has yielded."""
        own = self.state.yields.setdefault(" ".join(result.configs), Yield())
        own.rounds += 1
        own.scripts += result.scripts
        own.new_cells += result.new_cells
        own.new_faces += result.new_faces
        self.state.nights[-1].rounds += 1

    def add_speed(self, scripts_per_s: float) -> None:
        """Note the speed of the last minute."""
        speeds = self.state.nights[-1].speeds
        if len(speeds) < _MOST_SPEEDS:
            speeds.append(round(scripts_per_s, 2))

    def unused_seed(self, draw: int) -> int:
        """Return ``draw``, or the next number that no night that is kept has used as a seed."""
        used = {night.seed for night in self.state.nights}
        while draw in used:
            draw += 1
        return draw

    def save(self) -> None:
        """Write the state. Raises `OSError`."""
        data = msgspec.json.format(msgspec.json.encode(self.state, order="sorted"), indent=1)
        write_whole(self.file, data + b"\n")

    def close(self) -> None:
        """Let others take the store."""
        os.close(self._lock)
