"""The known bugs that ship with the package: one JSON file each in ``known_bugs/``.

A file says what the bug breaks (its signatures), where it is (``releases``), why (``reason``), which patches mend it
(``fixes``), and holds the minimal script that shows it. ``sr-fuzz replay`` reads it like any script.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from sr_fuzz.outcome import StepRecord, Violation
from sr_fuzz.outcome.files import BUG_FORMAT, named, read_json
from sr_fuzz.script import Script, ScriptError
from sr_fuzz.script.explain import short
from sr_fuzz.script.reading import converted, refuse_unwritable
from sr_fuzz.script.validation import checked
from sr_fuzz.sglang_api.versions import is_among

FOLDER = "known_bugs"


class KnownError(ValueError):
    """Known bugs or findings that cannot be read. The message is one line and names the file."""


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
    faces: dict[str, str] = {}
    """What its script shows instead on some releases: version specifier -> signature. No such signature is known for
    itself, since there it stands for other bugs as well."""
    releases: str | None = None
    """A version specifier (PEP 440); None for every release so far."""
    fixes: tuple[str, ...] = ()
    """Import paths of the patches with which the script breaks nothing."""
    engine: Literal["local", "server"] = "local"
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

    def shown_in(self, sglang_version: str) -> tuple[str, ...]:
        """What its script may show on that release."""
        faces = (face for releases, face in self.faces.items() if is_among(sglang_version, releases))
        return (*self.signatures, *faces)

    def is_open_in(self, sglang_version: str | None) -> bool:
        """Whether that release has it; None stands for any, and one whose version is not known may have any bug."""
        return self.releases is None or is_among(sglang_version, self.releases) is not False


def shipped_folder() -> Path:
    """Where the files of the package's known bugs are."""
    return Path(str(files(__package__) / FOLDER))


@functools.cache
def shipped() -> dict[Path, KnownBug]:
    """All known bugs of the package, by their files, in order of their names. Raises `KnownError`."""
    return {path: read_bug(path) for path in sorted(shipped_folder().glob("*.json"))}


def read_bug(path: Path) -> KnownBug:
    """Raises `KnownError`, one line that names the file."""
    source = named(path)
    try:
        raw = read_json(path)
        found = raw.get("bug_format") if isinstance(raw, dict) else None
        if found != BUG_FORMAT:
            raise KnownError(f"{source}: bug_format: this version of sr_fuzz reads {BUG_FORMAT}, got {short(found)}")
        # A script has checks that its types do not express.
        checked(raw.get("script"), f"{source}: script")
        bug = converted(raw, KnownBug, source)
        refuse_unwritable(raw, source)
    except ScriptError as error:
        raise KnownError(str(error)) from None
    for releases in (bug.releases or "", *bug.faces):
        try:
            SpecifierSet(releases)
        except InvalidSpecifier:
            expected = "expected a version specifier such as <0.5.22"
            raise KnownError(f"{source}: releases: {expected}, got {short(releases)}") from None
    return bug
