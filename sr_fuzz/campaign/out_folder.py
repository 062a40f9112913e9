"""The folder of a campaign: what earlier campaigns have left there, and the findings that this one writes.

A finding is on the disk from the moment it is seen: as it was seen, under ``unfinished/``, until its test is written.
What is in the folder is known to the next campaign that writes there, and is replaced by something better only.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from sr_fuzz.bugs.known import emitted_in
from sr_fuzz.emit.pytest_repro import TRACE_STEPS, emit, emit_again, repro_path, stem
from sr_fuzz.emit.replacing import KeptBetter, KeptForeign, is_better
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import Case, finding_beside, load, save_finding
from sr_fuzz.outcome.writing import remove_abandoned
from sr_fuzz.script import ScriptError
from sr_fuzz.shrink.finding_steps import Investigated

NOT_REPRODUCED = "not-reproduced"
"""Subfolder for the scripts of findings that no fresh run showed again."""

UNFINISHED = "unfinished"
"""Subfolder for findings that are being followed up; of those that were, when a campaign was killed."""

_SUSPECT = "suspect"


class FoundBefore(NamedTuple):
    """A test that an earlier campaign has written."""

    signature: str
    path: Path
    reason: str


class OutFolder:
    """The only writer of findings of a campaign. Its methods raise `OSError`."""

    def __init__(self, folder: Path, *, faults: tuple[str, ...] = (), taken: Iterable[Path] = ()) -> None:
        """``faults``: those of the engine under test. ``taken``: the files of known bugs, which are never written."""
        self.folder = folder
        self._faults = faults
        self._taken = {path.resolve() for path in taken}
        self._raw: dict[str, Path] = {}
        self.found: list[FoundBefore] = []
        """What was there at the start, without suspects."""
        self.suspects: dict[str, FoundBefore] = {}
        """The suspects that were there, by their signatures, which are those of known bugs."""

    # -- what is there -----------------------------------------------------------------------------------------

    def read(self) -> list[Case]:
        """Read what earlier campaigns have left. Returns their findings that were not confirmed, by a kill or Ctrl-C.

        What a killed one has left half done is completed (a test that was not written beside its finding), or removed
        (temporary files).
        """
        for folder in (self.folder, self.folder / UNFINISHED, self.folder / NOT_REPRODUCED):
            remove_abandoned(folder)
        unfinished = [case for file in sorted((self.folder / UNFINISHED).glob("*.json")) if (case := _abandoned(file))]
        for file in sorted(self.folder.glob("test_*.json")):
            case = _case(file)
            if case is None or case.finding is None or case.finding.faults != self._faults:
                continue
            if not case.finding.tried:
                unfinished.append(case)
            emit_again(file)
        self._read_tests(skip={case.path.with_suffix(".py") for case in unfinished})
        return unfinished

    def _read_tests(self, skip: set[Path]) -> None:
        for path, signatures, reason in emitted_in(self.folder):
            if path in skip or path.resolve() in self._taken:
                continue
            try:
                finding = finding_beside(path)
            except ScriptError:
                finding = None
            if finding is not None and finding.faults != self._faults:
                continue
            where = f" on SGLang {finding.sglang_version}" if finding is not None else ""
            for signature in signatures:
                before = FoundBefore(signature, path, reason or f"found before{where}, and not explained yet")
                if f"_{_SUSPECT}" in path.stem:
                    self.suspects.setdefault(signature, before)
                else:
                    self.found.append(before)

    @property
    def number_of_files(self) -> int:
        """Number of tests of findings that were there at the start."""
        return len({before.path for before in (*self.found, *self.suspects.values())})

    # -- what is written ---------------------------------------------------------------------------------------

    def begin(self, key: str, seen: Investigated) -> None:
        """Keep a finding as it is known so far, until `write` or `put_aside` is called for it.

        ``key``: its name in the campaign: its signature, and what tells it from others with that signature.
        """
        name = f"{stem(seen.finding)}{_own(seen.finding, key)}.{os.getpid()}.json"
        path = self.folder / UNFINISHED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_finding(seen.finding, path, seen.outcome.trace[-TRACE_STEPS:])
        self._raw[key] = path

    def write(self, key: str, seen: Investigated, known_cause: str | None = None) -> Path:
        """Write a finding as a test; returns the path of the test that shows it, an older one where that is better.

        A test that somebody has edited, and one of a known bug, is left alone, and the finding is written beside it.
        """
        for suffix in self._suffixes(seen.finding, key):
            if repro_path(seen.finding, self.folder, suffix).resolve() in self._taken:
                continue
            try:
                path = emit(
                    seen.finding, self.folder, trace=seen.outcome.trace, known_cause=known_cause, suffix=suffix
                )
            except KeptForeign:
                continue
            except KeptBetter as kept:
                path = kept.path
            self._end(key)
            return path
        raise AssertionError("there are always more names")

    @staticmethod
    def _suffixes(finding: Finding, key: str) -> Iterable[str]:
        own = _own(finding, key)
        return (own if number == 1 else f"{own}_{number}" for number in itertools.count(1))

    def put_aside(self, key: str, finding: Finding) -> Path:
        """Write a finding that no fresh run showed as a script: it is no test. A shorter script of it is kept."""
        path = self._save_aside(finding)
        self._end(key)
        return path

    def _save_aside(self, finding: Finding) -> Path:
        path = self.folder / NOT_REPRODUCED / f"{stem(finding)}.json"
        before = _case(path)
        if before is None or before.finding is None or not is_better(before.finding, finding):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_finding(finding, path)
        return path

    def close(self, case: Case, *, shows: bool) -> None:
        """End an unfinished finding of an earlier campaign: this one has followed it up, or it shows no more."""
        if case.path.parent != self.folder / UNFINISHED:
            return  # a test of its own, which stays
        if not shows and case.finding is not None:
            self._save_aside(case.finding)
        case.path.unlink(missing_ok=True)
        _remove_if_empty(case.path.parent)

    def forget(self, key: str) -> None:
        """End what `begin` began, where nothing more is to be written."""
        self._end(key)

    def _end(self, key: str) -> None:
        raw = self._raw.pop(key, None)
        if raw is not None:
            raw.unlink(missing_ok=True)
            _remove_if_empty(raw.parent)


def _own(finding: Finding, key: str) -> str:
    """Return what tells its file from those of other bugs with its signature."""
    return re.sub(r"\W+", "_", key.removeprefix(finding.signature)).rstrip("_")


def _case(file: Path) -> Case | None:
    try:
        return load(file)
    except ScriptError:
        return None  # not a finding; a user may keep anything there


def _abandoned(file: Path) -> Case | None:
    """Return the finding of a campaign that runs no more."""
    pid = file.stem.rpartition(".")[2]
    if pid.isdigit() and psutil.pid_exists(int(pid)):
        return None
    case = _case(file)
    return case if case is not None and case.finding is not None else None


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # it holds other findings
