"""Which emitted test may be replaced by another one: an unedited one, by a better one of the same finding."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import Case, EmittedTest, finding_file, is_readable, load
from sr_fuzz.script import ScriptError, to_json

Replace = Literal["better", "as good", "any"]
"""What may take the place of an unedited test: what is better, what is at least as good, or anything."""


class NotReplaced(FileExistsError):
    """An emitted test stays as it is. The message is one line that names the file and says why."""


class KeptBetter(NotReplaced):
    """The test that is there shows the same finding, and is better, or as good."""

    def __init__(self, path: Path, there: Finding) -> None:
        super().__init__(
            f"{path}: not replaced: it is not worse ({_quality_text(there)}) than what would be written instead"
        )
        self.path, self.finding = path, there


class KeptOther(NotReplaced):
    """The file that is there was edited, or is of another finding, or sr_fuzz did not write it."""


def check_replaceable(path: Path, finding: Finding, *, as_good: bool) -> EmittedTest | None:
    """Raise `NotReplaced` where the emitted test at ``path`` must not be replaced by that of ``finding``.

    ``as_good``: whether one that is as good may take its place. Returns the test that is to be replaced, if any.
    """
    file = finding_file(path)
    if not (os.path.lexists(path) or os.path.lexists(file)):
        return None
    case = unedited(path) if os.path.lexists(path) else _case(file)
    if case is None or case.finding is None or case.test is None:
        raise KeptOther(f"{path}: not replaced: it was edited since it was written, or not written by sr_fuzz")
    there = case.finding
    if (there.signature, there.faults) != (finding.signature, finding.faults):
        raise KeptOther(f"{path}: not replaced: it is of another finding, {there.signature}")
    if not path.exists():
        return None  # somebody has removed the test of this finding
    if is_better(there, finding) or not (as_good or is_better(finding, there)):
        raise KeptBetter(path, there)
    return case.test


def is_better(finding: Finding, other: Finding) -> bool:
    """Whether ``finding`` shows more often than ``other``, or as often with fewer actions or with a shorter script."""
    return _quality(finding) > _quality(other)


def check_same(path: Path, data: bytes) -> None:
    """Raise `NotReplaced` where there is a file ``path`` with another content."""
    if path.exists() and path.read_bytes() != data:
        raise KeptOther(f"{path}: not replaced: there is another test with that name, perhaps an edited one")


def unedited(path: Path) -> Case | None:
    """Return the finding file beside the emitted test ``path``; None where the test was edited, or not emitted.

    A test that an older version has emitted has no checksum in the file beside it, and counts as edited.
    """
    case = _case(finding_file(path)) if is_readable(path) else None
    return case if case is not None and case.test is not None and case.test.sha256 == digest_of(path) else None


def _case(file: Path) -> Case | None:
    try:
        return load(file) if is_readable(file) else None
    except ScriptError:
        return None


def digest_of(path: Path) -> str | None:
    """Return the checksum of a file; None where it cannot be read."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return None


def digest(data: bytes) -> str:
    """Return the checksum by which an edited file is told from one that is as it was written.

    Line ends do not count, since git may change them.
    """
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()


def _quality(finding: Finding) -> tuple[float, int, int]:
    shown = finding.reproduced / finding.tried if finding.tried else 0.0
    return shown, -len(finding.script.actions), -len(to_json(finding.script))


def _quality_text(finding: Finding) -> str:
    actions = len(finding.script.actions)
    shown = finding.reliability if finding.tried else "not run again"
    return f"{shown}, {actions} action{'' if actions == 1 else 's'}"
