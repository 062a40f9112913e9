"""Trouble: an error that kept a script from being played or followed up and is no fault of SGLang.

Examples are an engine that broke, a process that was killed from outside, or an error in our own code. Each one is
written with its script into ``trouble/`` in the campaign's folder, counted by its first line, and shown at the end; the
campaign continues.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Protocol

from sr_fuzz.campaign.events import Listener, Trouble, TroubleMet
from sr_fuzz.outcome.writing import write_together
from sr_fuzz.script import Script, script_hash, to_json
from sr_fuzz.script.errors import EngineError

FOLDER = "trouble"

RESUMING = "resuming"
"""What is being done when a process was killed: others are started, and the script is played again."""

MAX_IN_A_ROW = 5
"""Number of scripts in a row that could not be played after which a campaign gives up. One or two may meet the same
short disturbance, such as a lack of memory; five, with an engine restart after each, show that no script can be
played."""

_SHOWN = 200
"""Number of characters of a first line by which errors are counted, and which are shown."""


class Troubles(Protocol):
    """Takes trouble."""

    @property
    def total(self) -> int:
        """How often anything went wrong."""
        ...

    def keep(self, script: Script | None, error: BaseException, doing: str) -> object:
        """Take an error that came while ``doing`` something. ``script``: None where no script has to do with it."""
        ...


class TroubleLog:
    """Writes troubles to disk and counts them."""

    def __init__(self, out: Path, troubles: list[Trouble], on_event: Listener) -> None:
        """``out``: the campaign's folder. ``troubles``: the summary's list, which is filled in."""
        self._folder = out / FOLDER
        self._troubles = troubles
        self._on_event = on_event

    @property
    def total(self) -> int:
        """How often anything went wrong."""
        return sum(trouble.count for trouble in self._troubles)

    def keep(self, script: Script | None, error: BaseException, doing: str) -> Trouble:
        """Count an error; the first one of its kind is written to disk with the script that met it.

        ``script``: None where no script has to do with it. Where the disk takes no more it is only counted.
        """
        return self.add(script, first_line(error), "".join(traceback.format_exception(error)), doing)

    def add(self, script: Script | None, what: str, told: str, doing: str) -> Trouble:
        """Count an error of which only the text is known; see `keep`. ``told``: its traceback."""
        known = next((one for one in self._troubles if (one.what, one.doing) == (what, doing)), None)
        if known is None:
            path = self._write(script, told, doing) if script is not None else None
            known = Trouble(what, doing, path=path)
            self._troubles.append(known)
        known.count += 1
        self._on_event(TroubleMet(what, doing, known.path, known.count == 1))
        return known

    def _write(self, script: Script, told: str, doing: str) -> Path | None:
        path = self._folder / f"{doing}-{script_hash(script)[:12]}-{len(self._troubles)}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_together({path: to_json(script), path.with_suffix(".txt"): told.encode(errors="backslashreplace")})
        except OSError as full:
            self.keep(None, full, "writing")
            return None
        return path


def first_line(error: BaseException) -> str:
    """Return the message of an error in one line, with its type if it is not one of ours."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"[:_SHOWN]
    text = (str(error).strip().splitlines() or [""])[0][:_SHOWN]
    return text if isinstance(error, EngineError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
