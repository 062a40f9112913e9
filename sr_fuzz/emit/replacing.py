"""Which emitted test may be replaced by another one: the own one, unedited, by one that is at least as good."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import load
from sr_fuzz.script import ScriptError, to_json


class NotReplaced(FileExistsError):
    """An emitted test stays as it is. The message is one line that names the file and says why."""


class KeptBetter(NotReplaced):
    """The test that is there shows the same finding, and is better."""

    def __init__(self, path: Path, there: Finding) -> None:
        super().__init__(
            f"{path}: not replaced: it is better ({_quality_text(there)}) than what would be written instead"
        )
        self.path, self.finding = path, there


class KeptForeign(NotReplaced):
    """The file that is there was edited, or sr_fuzz did not write it for this finding."""


def check_replaceable(path: Path, finding: Finding) -> None:
    """Raise `NotReplaced` where the emitted test at ``path`` must not be replaced by that of ``finding``."""
    if not path.exists():
        return
    there = unedited(path)
    if there is None:
        raise KeptForeign(f"{path}: not replaced: it was edited since it was written, or not written by sr_fuzz")
    if (there.signature, there.faults) != (finding.signature, finding.faults):
        raise KeptForeign(f"{path}: not replaced: it is of another finding, {there.signature}")
    if is_better(there, finding):
        raise KeptBetter(path, there)


def is_better(finding: Finding, other: Finding) -> bool:
    """Whether ``finding`` shows more often than ``other``, or as often with fewer actions or with a shorter script."""
    return _quality(finding) > _quality(other)


def check_same(path: Path, data: bytes) -> None:
    """Raise `NotReplaced` where there is a file ``path`` with another content."""
    if path.exists() and path.read_bytes() != data:
        raise KeptForeign(f"{path}: not replaced: there is another test with that name, perhaps an edited one")


def unedited(path: Path) -> Finding | None:
    """Return the finding of the emitted test ``path``; None where it was edited, or was not emitted as it is.

    A test that an older version has emitted has no checksum in the file beside it, and counts as edited.
    """
    try:
        case = load(path.with_suffix(".json"))
        data = path.read_bytes()
    except (ScriptError, OSError):
        return None
    return case.finding if case.test is not None and case.test.sha256 == digest(data) else None


def digest(data: bytes) -> str:
    """Return the checksum by which an edited file is told from one that is as it was written."""
    return hashlib.sha256(data).hexdigest()


def _quality(finding: Finding) -> tuple[float, int, int]:
    shown = finding.reproduced / finding.tried if finding.tried else 0.0
    return shown, -len(finding.script.actions), -len(to_json(finding.script))


def _quality_text(finding: Finding) -> str:
    actions = len(finding.script.actions)
    shown = finding.reliability if finding.tried else "not run again"
    return f"{shown}, {actions} action{'' if actions == 1 else 's'}"
