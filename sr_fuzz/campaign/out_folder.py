"""The folder of a campaign: what earlier campaigns have left there, and the findings that this one writes.

A finding is on the disk from the moment it is seen: as it was seen, under ``unfinished/``, until its test is written.
What is in the folder is known to the next campaign that writes there, and is replaced by something better only.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from sr_fuzz.bugs.known import emitted_in
from sr_fuzz.campaign.finding_folder import fill
from sr_fuzz.campaign.trouble import FOLDER as TROUBLE
from sr_fuzz.emit.pytest_repro import TRACE_STEPS, complete, emit, repro_path, stem
from sr_fuzz.emit.replacing import KeptBetter, KeptOther, is_better
from sr_fuzz.engine.contract import UnderTest
from sr_fuzz.lifetime import locks
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import (
    FINDING_NAME,
    Case,
    finding_data,
    finding_file,
    is_readable,
    load,
    repro_beside,
    save_finding,
)
from sr_fuzz.outcome.writing import remove_abandoned, write_whole
from sr_fuzz.script import Script, ScriptError
from sr_fuzz.shrink.confirm import CONFIRM_RUNS
from sr_fuzz.shrink.finding_steps import Investigated

NOT_REPRODUCED = "not-reproduced"
"""Subfolder for the scripts of findings that no fresh run showed again."""

UNFINISHED = "unfinished"
"""Subfolder for findings that are being followed up; of those that were, when a campaign was killed."""


class FoundBefore(NamedTuple):
    """A test that an earlier campaign has written."""

    signature: str
    path: Path
    reason: str
    finding: Finding | None = None
    """Of a test that names no cause."""


class Unfinished(NamedTuple):
    """A finding that an earlier campaign could not follow up to its end."""

    case: Case
    fixes: tuple[str, ...]
    """The fixes of known bugs with which it was seen: without them another bug hides it."""


class Written(NamedTuple):
    """Where a finding is on the disk."""

    path: Path
    beside: Path | None = None
    """The file that would have been written, and was left as it is: somebody has edited it."""


class OutFolder:
    """The only writer of findings of a campaign. Its methods raise `OSError` unless they say otherwise."""

    def __init__(
        self,
        folder: Path,
        engine: UnderTest,
        *,
        fixes: Collection[str] = (),
        taken: Iterable[Path] = (),
        own_folders: bool = False,
    ) -> None:
        """``engine``: the one under test. ``fixes``: import paths of the fixes of known bugs. ``taken``: the files of
        known bugs, which are never written. ``own_folders``: whether each test gets a folder of its own, with more
        files (`sr_fuzz.campaign.finding_folder`)."""
        self.folder = folder
        self.engine = engine
        self._fixes = frozenset(fixes)
        self._taken = {os.path.realpath(path) for path in taken}
        self._own_folders = own_folders
        self._raw: dict[str, Path] = {}
        self._whole: dict[str, Script] = {}
        """The scripts with which findings were seen first, by their keys."""
        self._token = secrets.token_hex(4)
        self._lock = -1
        self.found: list[FoundBefore] = []
        """What was there at the start, without suspects."""
        self.causes: set[tuple[str, ...]] = set()
        """The fixes with which each of them, and of those of this campaign, is gone."""
        self.suspects: dict[str, FoundBefore] = {}
        """The suspects that were there, by their signatures, which are those of known bugs."""

    # -- what is there -----------------------------------------------------------------------------------------

    def read(self, on_error: Callable[[OSError], object]) -> list[Unfinished]:
        """Read what earlier campaigns have left. Returns their findings that were not confirmed, by a kill or Ctrl-C.

        What a killed one has left half done is completed (a test that was not written beside its finding), or removed
        (temporary files). ``on_error`` is called with what the disk refuses; the rest is read all the same.
        """

        def tried(work: Callable[[], object]) -> None:
            try:
                work()
            except OSError as error:
                on_error(error)

        of_tests = self.folder.glob("*/") if self._own_folders else ()
        for folder in {self.folder, *(self.folder / name for name in (UNFINISHED, NOT_REPRODUCED, TROUBLE)), *of_tests}:
            tried(lambda folder=folder: remove_abandoned(folder))  # type: ignore[misc]
        unfinished = list(self._abandoned())
        for file in sorted([*self.folder.glob("test_*.json"), *self.folder.glob(f"*/{FINDING_NAME}")]):
            case = _case(file)
            if case is None or case.finding is None:
                continue
            tried(lambda file=file: complete(file))  # type: ignore[misc]
            fixes = self._seen_with(case.finding)
            if fixes is not None and not case.finding.tried and self._is_of_this(case.finding):
                unfinished.append(Unfinished(case, fixes))
        self._read_tests(skip={repro_beside(each.case.path) for each in unfinished})
        return unfinished

    def _abandoned(self) -> Iterator[Unfinished]:
        """The findings of campaigns that run no more, as far as this engine can show them."""
        folder = self.folder / UNFINISHED
        for file in sorted(folder.glob("*.json")):
            lock = folder / f".{file.stem.rpartition('.')[2]}.lock"
            if lock.exists() and not locks.is_free(lock):
                continue  # it is being followed up
            case = _case(file)
            if case is None or case.finding is None or not self._is_of_this(case.finding):
                continue
            fixes = self._seen_with(case.finding)
            if fixes is not None:
                yield Unfinished(case, fixes)

    def _is_of_this(self, finding: Finding) -> bool:
        """Whether it was found in the SGLang under test. A source tree is the same one when its version has changed."""
        engine = self.engine
        if engine.sglang_tree is not None:
            return finding.sglang_tree == engine.sglang_tree
        return (finding.sglang_version, finding.sglang_tree) == (engine.sglang_version, None)

    def _seen_with(self, finding: Finding) -> tuple[str, ...] | None:
        """Return the fixes with which it was seen; None where other faults were seeded than now."""
        own = self.engine.faults
        more = tuple(path for path in finding.faults if path not in own)
        return more if set(own) <= set(finding.faults) and self._fixes.issuperset(more) else None

    def _read_tests(self, skip: set[Path]) -> None:
        for path, signatures, reason in emitted_in(self.folder, self.engine.sglang_version):
            if path in skip or os.path.realpath(path) in self._taken:
                continue
            case = _case(finding_file(path))
            finding = case.finding if case is not None else None
            if finding is not None and (self._seen_with(finding) is None or finding.shown_by_none):
                continue
            gone_with = finding.gone_with if finding is not None else ()
            if gone_with and not reason:
                self.causes.add(gone_with)
            where = f" on SGLang {finding.sglang_version}" if finding is not None else ""
            for signature in signatures:
                explained = f"gone with {', '.join(gone_with)}" if gone_with else "not explained yet"
                why = reason or f"found before{where}, and {explained}"
                before = FoundBefore(signature, path, why, None if reason else finding)
                if case is not None and case.suspect:
                    self.suspects.setdefault(signature, before)
                else:
                    self.found.append(before)

    def has(self, path: Path) -> bool:
        """Whether it is a test that an earlier campaign has written here."""
        return any(path == before.path for before in self.found)

    @property
    def number_of_files(self) -> int:
        """Number of tests of findings that were there at the start."""
        return len({before.path for before in (*self.found, *self.suspects.values())})

    # -- what is written ---------------------------------------------------------------------------------------

    def begin(self, key: str, seen: Investigated, *, suspect: bool) -> None:
        """Keep a finding as it is known so far, until `write`, `put_aside` or `forget` is called for it.

        ``key``: its name in the campaign: its signature, and what tells it from others with that signature.
        """
        path = self.folder / UNFINISHED / f"{stem(seen.finding)}{_own(seen.finding, key)}.{self._token}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(seen.finding.script.actions) == seen.finding.original_actions:
            self._whole.setdefault(key, seen.finding.script)
        if self._lock < 0:
            self._lock = locks.hold(self._lock_file)
        save_finding(seen.finding, path, seen.outcome.trace[-TRACE_STEPS:], suspect=suspect)
        self._raw[key] = path

    @property
    def _lock_file(self) -> Path:
        """Held while this campaign follows findings up, so that others leave these alone."""
        return self.folder / UNFINISHED / f".{self._token}.lock"

    def write(self, key: str, seen: Investigated, *, known_cause: str | None, suspect: bool) -> Written:
        """Write a finding as a test; returns the test that shows it, an older one where that is better.

        A test that somebody has edited, and one of a known bug, is left alone, and the finding is written beside it.
        """
        beside: Path | None = None
        for suffix in self._suffixes(seen.finding, key):
            home = self._home(seen.finding, suffix)
            if os.path.realpath(repro_path(seen.finding, home, suffix)) in self._taken:
                continue
            try:
                path = emit(
                    seen.finding, home, trace=seen.outcome.trace, known_cause=known_cause, suffix=suffix,
                    suspect=suspect,
                )  # fmt: skip
                if self._own_folders:
                    fill(home, seen, self._whole.get(key))
            except KeptOther:
                beside = repro_path(seen.finding, home, suffix)
                continue
            except KeptBetter as kept:
                path = kept.path
            self.forget(key)
            return Written(path, beside)
        raise AssertionError("there are always more names")

    def _home(self, finding: Finding, suffix: str) -> Path:
        return self.folder / f"{stem(finding)}{suffix}" if self._own_folders else self.folder

    @staticmethod
    def _suffixes(finding: Finding, key: str) -> Iterable[str]:
        own = _own(finding, key)
        return (own if number == 1 else f"{own}_{number}" for number in itertools.count(1))

    def put_aside(self, key: str, finding: Finding) -> Path:
        """Write a finding that no fresh run showed as a script: it is no test. A shorter script of it is kept."""
        path = self._save_aside(finding)
        self.forget(key)
        return path

    def _save_aside(self, finding: Finding) -> Path:
        names = (f"{stem(finding)}{'' if number == 1 else f'_{number}'}.json" for number in itertools.count(1))
        for path in (self.folder / NOT_REPRODUCED / name for name in names):
            if os.path.lexists(path):
                there = _finding(path)
                if there is None or (there.signature, there.faults) != (finding.signature, finding.faults):
                    continue  # somebody else's
                if is_better(there, finding):
                    return path
            path.parent.mkdir(parents=True, exist_ok=True)
            save_finding(finding, path)
            return path
        raise AssertionError("there are always more names")

    def close(self, case: Case, *, shows: bool) -> None:
        """End an unfinished finding of an earlier campaign: this one has followed it up, or it shows no more."""
        if case.path.parent != self.folder / UNFINISHED:
            if not shows and case.finding is not None:  # a test, which stays; the next campaign need not try again
                tried = replace(case.finding, tried=CONFIRM_RUNS)
                write_whole(case.path, finding_data(tried, case.trace, case.test, suspect=case.suspect))
            return
        if not shows and case.finding is not None:
            self._save_aside(case.finding)
        case.path.unlink(missing_ok=True)
        self._tidy()

    def forget(self, key: str) -> None:
        """End what `begin` began."""
        raw = self._raw.pop(key, None)
        self._whole.pop(key, None)
        if raw is not None:
            raw.unlink(missing_ok=True)
            self._tidy()

    def end(self) -> None:
        """Leave what is unfinished to the next campaign."""
        self._raw.clear()
        self._tidy()

    def _tidy(self) -> None:
        """Remove the folder of unfinished findings if nothing is in it, and the locks of campaigns that have ended."""
        folder = self.folder / UNFINISHED
        if not self._raw and self._lock >= 0:
            self._lock_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1
        for lock in folder.glob(".*.lock"):
            if locks.is_free(lock):
                lock.unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:
            return  # it holds other findings


def _own(finding: Finding, key: str) -> str:
    """Return what tells its file from those of other bugs with its signature."""
    return re.sub(r"\W+", "_", key.removeprefix(finding.signature)).rstrip("_")


def _case(file: Path) -> Case | None:
    """Return what is in a file; None where it is no finding: a user may keep anything there."""
    try:
        return load(file) if is_readable(file) else None
    except ScriptError:
        return None


def _finding(file: Path) -> Finding | None:
    case = _case(file)
    return case.finding if case is not None else None
