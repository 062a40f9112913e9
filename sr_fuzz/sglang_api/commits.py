"""Commits of a git repository of SGLang: which lie between two of them, and the sources of one as a folder.

Everything is asked of ``git``. The repository is only read: its working tree, index and configuration stay as they are,
since a commit is written into a folder of its own through an index of its own.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sr_fuzz.lifetime.owned_folders import owned_folder
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import one_line, shortened

_SCHEDULER = "sglang/srt/managers/scheduler.py"
"""A file by which the sources are recognised."""


# Hooks of the repository are not run: it is only read.
_GIT = ("git", "-c", f"core.hooksPath={os.devnull}")


class Commit(NamedTuple):
    """One commit."""

    id: str
    subject: str

    @property
    def name(self) -> str:
        """Enough of the id to name it by in any repository, then what it says of itself."""
        return f"{self.id[:12]} {one_line(self.subject, 60)}".rstrip()


class Commits(NamedTuple):
    """The line of history between two commits."""

    git_dir: Path
    sources: str
    """The folder that is exported: ``python``, or ``sglang`` where that lies at the top."""
    line: tuple[Commit, ...]
    """The oldest first. It begins with the older end; of the others those are listed that have changed the sources, so
    the last one has the sources of the newer end. Of a merge only the side that was merged into is followed: the merge
    stands for all that it brought."""
    is_reversed: bool
    """Whether the end that was named first is the newer one."""

    @contextmanager
    def exported(self, commit: Commit) -> Iterator[Path]:
        """Yield a folder for an engine's path with the sources of that commit; it is removed afterwards."""
        with owned_folder() as folder:
            tree = folder / "sources"
            target = tree if self.sources == "python" else tree / self.sources
            target.mkdir(parents=True)
            into = {"GIT_INDEX_FILE": str(folder / "index"), "GIT_WORK_TREE": str(target)}
            _git(self.git_dir, "read-tree", f"{commit.id}:{self.sources}", **into)
            _git(self.git_dir, "checkout-index", "--all", **into)
            yield tree


def commits_between(repository: Path, one: str, other: str) -> Commits:
    """Return the commits from ``one`` to ``other``, whichever of the two is the older.

    Raises `EngineError`, one line, where there are none to look at.
    """
    if not repository.is_dir():
        raise EngineError(f"{repository}: there is no such folder; expected a git repository of SGLang")
    git_dir = _git_dir(repository)
    first, second = (_commit(git_dir, revision) for revision in (one, other))
    older, newer = (first, second) if _is_ancestor(git_dir, first, second) else (second, first)
    if first.id == second.id or not _is_ancestor(git_dir, older, newer):
        why = "are one commit" if first.id == second.id else "lie on two lines: neither comes before the other"
        raise EngineError(f"{shortened(one)} and {shortened(other)} {why}")
    sources = next((name for name in ("python", "sglang") if _has_sources(git_dir, newer, name)), None)
    if sources is None:
        raise EngineError(f"{repository}: no repository of SGLang: there is no python/{_SCHEDULER} in {newer.name}")
    # Of a history that was merged, only what comes after the older end: what lies beside it may lack what it has.
    line = ("--first-parent", "--ancestry-path", "--reverse", "--pretty=oneline")
    listed = _git(git_dir, "rev-list", *line, f"{older.id}..{newer.id}", "--", sources)
    between = [Commit(*line.partition(" ")[::2]) for line in listed.splitlines()]
    if not between:
        raise EngineError(f"no commit between {older.name} and {newer.name} has changed {sources}/")
    return Commits(git_dir, sources, (older, *between), is_reversed=older.id != first.id)


def _git_dir(repository: Path) -> Path:
    return Path(_run(["-C", str(repository), "rev-parse", "--absolute-git-dir"], {}, str(repository)))


def _commit(git_dir: Path, revision: str) -> Commit:
    try:
        found = _git(git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except (EngineError, ValueError):  # there is none, or the name has a zero byte
        raise EngineError(f"{shortened(revision)!r}: no commit of {git_dir}") from None
    listed = _git(git_dir, "rev-list", "--max-count=1", "--pretty=oneline", found.splitlines()[-1])
    return Commit(*listed.partition(" ")[::2])


def _is_ancestor(git_dir: Path, one: Commit, other: Commit) -> bool:
    return _git(git_dir, "rev-list", "--max-count=1", one.id, f"^{other.id}") == ""


def _has_sources(git_dir: Path, commit: Commit, folder: str) -> bool:
    path = _SCHEDULER if folder == "sglang" else f"{folder}/{_SCHEDULER}"
    return _git(git_dir, "ls-tree", "--full-tree", "--name-only", commit.id, "--", path) != ""


def _git(git_dir: Path, *arguments: str, **environment: str) -> str:
    return _run(arguments, {"GIT_DIR": str(git_dir)} | environment, str(git_dir))


def _run(arguments: Sequence[str], environment: Mapping[str, str], where: str) -> str:
    """Return what git prints. Raises `EngineError`, one line with what git says."""
    # This process may run in a hook of another repository, which these variables would name.
    clean = {name: value for name, value in os.environ.items() if name not in _of_one_repository()}
    done = _started(arguments, clean | {"LC_ALL": "C"} | environment)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["git failed and said nothing"]
        raise EngineError(f"{where}: {one_line(said[0])}")
    return done.stdout.strip("\n")


def _started(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([*_GIT, *arguments], capture_output=True, text=True, errors="replace", env=environment)
    except FileNotFoundError:
        raise EngineError("there is no program called git; install it to look at commits") from None


@functools.cache
def _of_one_repository() -> frozenset[str]:
    """Environment variables that say which repository git works on, such as ``GIT_DIR``, as git itself lists them."""
    return frozenset(_started(["rev-parse", "--local-env-vars"], os.environ).stdout.split())
