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
from packaging.version import Version

from sr_fuzz.campaign.bisecting import folder_of_release, over_commits
from sr_fuzz.campaign.bisection import SHOWS, Bisection, Row, Verdict, WrongEnd, from_rows
from sr_fuzz.campaign.showing import judge, wanted_of
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import one_line
from sr_fuzz.sglang_api.commits import commits_between
from sr_fuzz.sglang_api.sources import fingerprint

HISTORY = "history.json"

HISTORY_FORMAT = 1
"""Format version of the file; one of another format is played again."""


class OfTree(msgspec.Struct, frozen=True):
    """What a source tree, or an unpacked wheel, says of a finding."""

    row: Row
    """The point is its folder."""
    state: str
    """`fingerprint` of the folder when it was played: a tree is played again when it has changed."""


class History(msgspec.Struct, omit_defaults=True):
    """What is known so far. A file of it is in the folder of its finding."""

    releases: Bisection
    trees: tuple[OfTree, ...] = ()
    is_complete: bool = False
    commits: Bisection | None = None
    """From the newest release without it to the commit of the source tree that shows it."""
    no_commits: str = ""
    """Why there is no ``commits`` of a source tree that shows it."""
    commits_of: str = ""
    """State of the tree for which commits were searched."""
    format: int = HISTORY_FORMAT


OpenOther = Callable[[Path | None, tuple[str, ...]], AbstractContextManager[Engine]]
"""Opens an engine with that folder first on its path (None: the installed SGLang) and these faults."""

OnHistory = Callable[[Finding, Path, History], None]
"""Is called with a finding, its folder, and its history when that is complete."""


class _Waiting(NamedTuple):
    finding: Finding
    folder: Path
    history: History
    verdicts: dict[str, Verdict]
    """What is known, by releases and trees."""


class Histories:
    """Plays the histories of findings, one after the other."""

    def __init__(
        self,
        releases: Sequence[str],
        trees: Sequence[str],
        open_other: OpenOther,
        on_history: OnHistory,
        *,
        under_test: str | None = None,
    ) -> None:
        """``releases``, oldest first, and ``trees`` (folders for an engine's path): on which findings are played.

        ``under_test``: which of them the campaign searches; what it has found and confirmed is not played there again.
        """
        self._releases = sorted(set(releases), key=Version)
        self._trees = tuple(dict.fromkeys(trees))
        self._open_other = open_other
        self._on_history = on_history
        self._under_test = under_test
        self._waiting: deque[_Waiting] = deque()
        self._closed: set[Path] = set()
        """Folders whose history is complete, or has failed: they are not asked again by this campaign."""
        self._not_fetched: dict[str, Verdict] = {}

    def __len__(self) -> int:
        """Number of findings that wait."""
        return len(self._waiting)

    def add(self, finding: Finding, folder: Path, *, just_found: bool = False) -> None:
        """Let a finding wait, unless its history is in its folder, or it waits or has waited.

        ``just_found``: by this campaign, in the SGLang under test.
        """
        if not finding.reproduced or folder in self._closed or any(one.folder == folder for one in self._waiting):
            return
        history = read(folder) or History(from_rows(finding.signature, []))
        verdicts = self._known(history)
        if just_found and self._under_test is not None:
            verdicts.setdefault(self._under_test, _own_verdict(finding))
        if history.is_complete and verdicts.keys() >= {*self._releases, *self._trees}:
            self._closed.add(folder)
            return
        self._waiting.append(_Waiting(finding, folder, history, verdicts))

    def _known(self, history: History) -> dict[str, Verdict]:
        """What need not be played again; what failed for a reason that says nothing about SGLang is, once a night."""
        same = (tree.row for tree in history.trees if tree.state == self._state(tree.row.point))
        rows = [*history.releases.rows, *same]
        return {row.point: row.verdict for row in rows if row.verdict.kind != "trouble"}

    def _state(self, tree: str) -> str:
        return fingerprint(Path(tree))

    def play_next(self) -> None:
        """Play the first finding that waits on one more SGLang.

        One whose history fails waits no more. Raises `EngineError`, and `OSError` when it cannot be written.
        """
        one = self._waiting[0]
        try:
            is_complete = self._play(one)
        except Exception:
            self._closed.add(one.folder)
            self._waiting.popleft()
            raise
        if is_complete:
            self._closed.add(one.folder)
            self._waiting.popleft()
            self._on_history(one.finding, one.folder, one.history)

    def _play(self, one: _Waiting) -> bool:
        """Play one more point, and write what is known; returns whether that is all."""
        left = [point for point in (*self._trees, *reversed(self._releases)) if point not in one.verdicts]
        if left:
            one.verdicts[left[0]] = self._verdict(one.finding, left[0])
        history, verdicts = one.history, one.verdicts
        releases = sorted({*self._releases, *filter(_is_release, verdicts)}, key=Version)
        rows = [Row(point, verdicts[point]) for point in releases if point in verdicts]
        history.releases = from_rows(one.finding.signature, rows)
        played = [Row(tree, verdicts[tree]) for tree in self._trees if tree in verdicts]
        others = [tree for tree in history.trees if tree.row.point not in self._trees]
        history.trees = (*others, *(OfTree(row, self._state(row.point)) for row in played))
        history.is_complete = False
        write(one.folder, history)  # before the commits, which take minutes and may be interrupted
        if len(left) > 1:
            return False
        self._add_commits(one.finding, history)
        history.is_complete = True
        write(one.folder, history)
        return True

    def _verdict(self, finding: Finding, point: str) -> Verdict:
        wanted = wanted_of(finding)
        if not _is_release(point):
            with self._open_other(Path(point), finding.faults) as engine:
                return judge(engine, wanted)
        if point in self._not_fetched:
            return self._not_fetched[point]
        try:
            folder = folder_of_release(point)
        except EngineError as error:
            return self._not_fetched.setdefault(point, Verdict("trouble", one_line(str(error))))
        with self._open_other(folder, finding.faults) as engine:
            return judge(engine, wanted)

    def _add_commits(self, finding: Finding, history: History) -> None:
        """Search the commits of a tree that shows it for the one that introduced it, unless that was done."""
        shown = next((tree for tree in history.trees if tree.row.verdict.shows), None)
        if shown is None or shown.state == history.commits_of:
            return
        history.commits, history.no_commits = None, ""
        for row in reversed(history.releases.rows):
            if row.verdict.shows is None:
                continue
            try:
                commits = commits_between(Path(shown.row.point), f"v{row.point}", "HEAD")
                if commits.is_reversed:
                    continue  # the tree is older than that release
                if row.verdict.shows:
                    break  # it is older than that release
                history.commits = over_commits(
                    wanted_of(finding), commits, lambda folder: self._open_other(folder, finding.faults)
                )
                history.no_commits = ""
                break
            except (EngineError, WrongEnd) as error:
                history.no_commits = history.no_commits or one_line(str(error))
        history.commits_of = shown.state


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


def _own_verdict(finding: Finding) -> Verdict:
    violation = finding.violation
    seen = one_line(f"{violation.invariant}: {violation.rule}: {violation.message}")
    return Verdict(SHOWS, seen, finding.signature, finding.reproduced)


def _is_release(point: str) -> bool:
    return not point.startswith("/")
