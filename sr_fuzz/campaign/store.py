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

from sr_fuzz.campaign.record import STATE_FORMAT, Record, State
from sr_fuzz.lifetime import locks
from sr_fuzz.outcome.writing import remove_abandoned, write_whole


class StoreError(Exception):
    """The store cannot be used. The message is one line that names the file and says what to do."""


class Store:
    """A folder that one campaign at a time writes to."""

    own_folders = True
    """Whether each finding has a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if needed, and take it. Raises `StoreError`, `OSError`."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        lock = locks.try_hold(folder / ".lock")
        if lock is None:
            raise StoreError(f"{folder}: another campaign writes to this store; wait for its end, or take another one")
        self._lock = lock
        try:
            self.record = Record(self._read())
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

    def unused_seed(self, draw: int) -> int:
        """Return ``draw``, or the next number that no night that is kept has used as a seed."""
        used = {night.seed for night in self.record.state.nights}
        while draw in used:
            draw += 1
        return draw

    def save(self) -> None:
        """Write the state. Raises `OSError`."""
        data = msgspec.json.format(msgspec.json.encode(self.record.state, order="sorted"), indent=1)
        write_whole(self.file, data + b"\n")

    def close(self) -> None:
        """Let others take the store."""
        os.close(self._lock)


class Unstored:
    """In the place of a store, for a campaign that remembers nothing but its findings."""

    own_folders = False

    def __init__(self, out: Path) -> None:
        """``out``: the folder of the findings, of which others may be there; ``trouble/`` goes there, too."""
        self.folder = self.findings = out
        self.record = Record()

    def save(self) -> None:
        """Keep nothing."""
