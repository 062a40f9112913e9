"""Trouble: what kept a script from being played, or from being followed up, and says nothing about SGLang.

The engine broke, a process was killed from outside, our own code failed. Each is kept with its script under
``trouble/`` of the campaign's folder, counted by its first line, and shown at the end; the campaign goes on.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import msgspec

from sr_fuzz.outcome.files import write_whole
from sr_fuzz.script import Script, script_hash, to_json
from sr_fuzz.script.errors import EngineError

FOLDER = "trouble"

MAX_IN_A_ROW = 5
"""Scripts in a row that could not be played before a campaign gives up: one or two may meet the same short disturbance,
such as a machine without memory; five with an engine started anew for each show that nothing can be played."""

_SHOWN = 200
"""Characters of a first line that are counted and shown."""


class Trouble(msgspec.Struct):
    """One kind of trouble, by its first line."""

    what: str
    doing: str
    """What the campaign did: ``playing``, ``minimising`` …"""
    count: int = 0
    path: Path | None = None
    """The script that met it first; the traceback lies beside it as ``.txt``."""


class TroubleLog:
    """Keeps and counts."""

    def __init__(self, out: Path, troubles: list[Trouble]) -> None:
        """``out``: the campaign's folder. ``troubles``: the summary's list, which is filled in."""
        self._folder = out / FOLDER
        self._troubles = troubles
        self.in_a_row = 0
        """Since a script was last played to its end."""

    def keep(self, script: Script, error: BaseException, doing: str) -> Trouble:
        """Count it; what is met for the first time is written down. Raises `OSError`."""
        what = first_line(error)
        known = next((one for one in self._troubles if (one.what, one.doing) == (what, doing)), None)
        if known is None:
            known = Trouble(what, doing, path=self._write(script, error))
            self._troubles.append(known)
        known.count += 1
        return known

    def _write(self, script: Script, error: BaseException) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{script_hash(script)[:12]}.json"
        write_whole(path, to_json(script))
        write_whole(path.with_suffix(".txt"), "".join(traceback.format_exception(error)).encode())
        return path


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type where that is not one of ours."""
    text = (str(error).strip().splitlines() or [""])[0][:_SHOWN]
    return text if isinstance(error, EngineError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
