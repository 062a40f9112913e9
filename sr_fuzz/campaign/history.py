"""The history of a finding: which SGLangs show it, and which release, or commit of a source tree, introduced it.

It is played while the follower has nothing else to do, one SGLang at a time, and is on the disk after each, so that the
next night goes on from there. The newest is played first, as that says whether it is still worth a look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec
from packaging.version import InvalidVersion, Version

from sr_fuzz.campaign.bisecting import over_commits, verdict_of_release
from sr_fuzz.campaign.bisection import SHOWS, Bisection, Row, Verdict, WrongEnd, from_rows
from sr_fuzz.campaign.showing import judge, wanted_of
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import one_line
from sr_fuzz.sglang_api.commits import commits_between

HISTORY = "history.json"

HISTORY_FORMAT = 1
"""Format version of the file; one of another format is played again."""


class History(msgspec.Struct, omit_defaults=True):
    """What is known so far. A file of it is in the folder of its finding."""

    releases: Bisection
    """Over releases, then source trees by their folders."""
    is_complete: bool = False
    commits: Bisection | None = None
    """From the newest release without it to the commit of the source tree that shows it."""
    no_commits: str = ""
    """Why there is no ``commits`` of a source tree that shows it."""
    format: int = HISTORY_FORMAT


OpenOther = Callable[[Path | None, tuple[str, ...]], AbstractContextManager[Engine]]
"""Opens an engine with that folder first on its path (None: the installed SGLang) and these faults."""

OnHistory = Callable[[Finding, Path, History], None]
"""Is called with a finding, its folder, and its history when that is complete."""


class _Waiting(NamedTuple):
    finding: Finding
    folder: Path
    verdicts: dict[str, Verdict]
    """What is known, by the points."""
    commits: Bisection | None


class Histories:
    """Plays the histories of findings, one after the other."""

    def __init__(
        self, releases: Sequence[str], trees: Sequence[str], open_other: OpenOther, on_history: OnHistory
    ) -> None:
        """``releases``, oldest first, and ``trees`` (folders for an engine's path): on which findings are played."""
        self._releases = releases
        self._trees = trees
        self._open_other = open_other
        self._on_history = on_history
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        """Number of findings that wait."""
        return len(self._waiting)

    def add(self, finding: Finding, folder: Path) -> None:
        """Let a finding wait, unless its history is in its folder, or there is nothing to compare it with."""
        if not finding.reproduced or not (self._releases or self._trees):
            return
        history = read(folder)
        rows = history.releases.rows if history is not None else ()
        # What could not be played for a reason that says nothing about SGLang is played again each night.
        verdicts = {row.point: row.verdict for row in rows if row.verdict.kind != "trouble"}
        verdicts[_found_in(finding)] = _own_verdict(finding)
        is_known = history is not None and history.is_complete and verdicts.keys() >= set(self._points(finding))
        if not is_known and all(one.folder != folder for one in self._waiting):
            commits = history.commits if history is not None else None
            self._waiting.append(_Waiting(finding, folder, verdicts, commits))

    def play_next(self) -> None:
        """Play the first finding that waits on one more SGLang.

        One whose history fails waits no more. Raises `EngineError`, and `OSError` when it cannot be written.
        """
        one = self._waiting[0]
        try:
            done = self._play(one)
        except Exception:
            self._waiting.popleft()
            raise
        if done.is_complete:
            self._waiting.popleft()
            self._on_history(one.finding, one.folder, done)

    def _play(self, one: _Waiting) -> History:
        points = self._points(one.finding)
        left = [point for point in reversed(points) if point not in one.verdicts]
        if left:
            one.verdicts[left[0]] = self._verdict(one.finding, left[0])
        rows = [Row(point, one.verdicts[point]) for point in points if point in one.verdicts]
        done = History(from_rows(one.finding.signature, rows), is_complete=len(left) <= 1, commits=one.commits)
        if done.is_complete and done.commits is None:
            self._add_commits(one.finding, done)
        write(one.folder, done)
        return done

    def _points(self, finding: Finding) -> list[str]:
        """All points in their order, the SGLang in which it was found among them."""
        own = _found_in(finding)
        releases = {*self._releases, *([own] if finding.sglang_tree is None else [])}
        trees = [*self._trees, *([own] if finding.sglang_tree is not None else [])]
        return [*sorted(releases, key=_by_version), *dict.fromkeys(trees)]

    def _verdict(self, finding: Finding, point: str) -> Verdict:
        wanted = wanted_of(finding)
        if not _is_tree(point):
            return verdict_of_release(wanted, point, lambda folder: self._open_other(folder, finding.faults))
        with self._open_other(Path(point), finding.faults) as engine:
            return judge(engine, wanted)

    def _add_commits(self, finding: Finding, history: History) -> None:
        """Search the commits of the source tree for the one that introduced it, where a release is without it."""
        rows = [row for row in history.releases.rows if row.verdict.shows is not None]
        trees = [row.point for row in rows if _is_tree(row.point) and row.verdict.shows]
        releases = [row for row in rows if not _is_tree(row.point)]
        if not trees or not releases or releases[-1].verdict.shows:
            return
        try:
            commits = commits_between(Path(trees[0]), f"v{releases[-1].point}", "HEAD")
            history.commits = over_commits(
                wanted_of(finding), commits, lambda folder: self._open_other(folder, finding.faults)
            )
        except (EngineError, WrongEnd) as error:
            history.no_commits = one_line(str(error))


def read(folder: Path) -> History | None:
    """Return the history in the folder of a finding; None where there is none that can be read."""
    try:
        history = msgspec.json.decode((folder / HISTORY).read_bytes(), type=History)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None  # there is none, or it is played again
    return history if history.format == HISTORY_FORMAT else None


def write(folder: Path, history: History) -> None:
    """Raises `OSError`."""
    write_whole(folder / HISTORY, msgspec.json.format(msgspec.json.encode(history), indent=1) + b"\n")


def _found_in(finding: Finding) -> str:
    return finding.sglang_tree or finding.sglang_version


def _own_verdict(finding: Finding) -> Verdict:
    violation = finding.violation
    seen = one_line(f"{violation.invariant}: {violation.rule}: {violation.message}")
    return Verdict(SHOWS, seen, finding.signature, finding.reproduced)


def _is_tree(point: str) -> bool:
    return point.startswith("/")


def _by_version(release: str) -> tuple[bool, Version | str]:
    try:
        return False, Version(release)
    except InvalidVersion:
        return True, release
