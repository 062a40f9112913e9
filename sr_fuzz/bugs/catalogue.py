"""The known bugs that ship with the package: one JSON file each in ``known_bugs/``.

A file says what the bug breaks (its signatures), where it is (``releases``), why (``reason``), which patches mend it
(``fixes``), and holds the minimal script that shows it. ``sr-fuzz replay`` reads it like any script.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet

from sr_fuzz.outcome import StepRecord, Violation
from sr_fuzz.outcome.files import BUG_FORMAT
from sr_fuzz.script import Script

FOLDER = "known_bugs"


class KnownBug(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One bug of SGLang."""

    bug_format: int
    signature: str
    """Of the violation that its script shows."""
    reason: str
    """The cause, with the lines of SGLang."""
    script: Script
    also_seen_as: tuple[str, ...] = ()
    """Its other signatures, in which ``*`` stands for anything."""
    releases: str | None = None
    """A version specifier (PEP 440); None for every release so far."""
    fixes: tuple[str, ...] = ()
    """Import paths of the patches with which the script breaks nothing."""
    engine: str = "local"
    """``server`` where only the server engine can show it."""
    page: str | None = None
    """Its page in docs/findings/."""
    sglang_version: str | None = None
    """Where ``violation`` and ``trace`` were seen."""
    violation: Violation | None = None
    trace: tuple[StepRecord, ...] = ()

    @property
    def signatures(self) -> tuple[str, ...]:
        return (self.signature, *self.also_seen_as)

    def is_open_in(self, sglang_version: str | None) -> bool:
        """Whether that release has it; None stands for any."""
        if self.releases is None or sglang_version is None:
            return True
        return SpecifierSet(self.releases).contains(sglang_version, prereleases=True)


@functools.cache
def shipped() -> dict[Path, KnownBug]:
    """All known bugs of the package, by their files, in order of their names."""
    folder = Path(str(files(__package__) / FOLDER))
    bugs = {path: msgspec.json.decode(path.read_bytes(), type=KnownBug) for path in sorted(folder.glob("*.json"))}
    newer = [path.name for path, bug in bugs.items() if bug.bug_format != BUG_FORMAT]
    if newer:
        raise ValueError(f"{newer[0]}: bug_format: this version of sr_fuzz reads {BUG_FORMAT}")
    return bugs
