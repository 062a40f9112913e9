"""Bisection on real engines: over releases, which are fetched, and over the commits of a git repository.

One engine runs at a time, and each is closed before the next is started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sr_fuzz.campaign.bisection import Bisection, OnEvent, Verdict, ignore, play_all, quick, search
from sr_fuzz.campaign.showing import Wanted, judge
from sr_fuzz.engine.contract import Engine
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import one_line
from sr_fuzz.sglang_api.commits import Commits
from sr_fuzz.sglang_api.releases import release_folder
from sr_fuzz.sglang_api.versions import installed_package, is_installed, version_in

OpenEngine = Callable[[Path | None], AbstractContextManager[Engine]]
"""Opens an engine whose processes have that folder first on their path; None for the installed SGLang."""


def over_releases(
    wanted: Wanted,
    releases: Sequence[str],
    open_engine: OpenEngine,
    on_event: OnEvent = ignore,
    *,
    halving: bool = False,
) -> Bisection:
    """Play the script on each release, the oldest first; ``halving``: only where that is needed, see `quick`."""

    def verdict(release: str) -> Verdict:
        try:
            folder = folder_of_release(release)
        except EngineError as error:
            return Verdict("trouble", one_line(str(error)))
        with open_engine(folder) as engine:
            return judge(engine, wanted)

    return (quick if halving else play_all)(wanted.signature, releases, verdict, on_event)


def folder_of_release(release: str) -> Path | None:
    """Return the folder for an engine's path, None for the installed release. Raises `EngineError`: not fetched."""
    return None if release == _installed_release() else release_folder(release)


def over_commits(
    wanted: Wanted,
    commits: Commits,
    open_engine: OpenEngine,
    on_event: OnEvent = ignore,
    *,
    mended: bool = False,
) -> Bisection:
    """Search the line for the commit that introduced the finding, or that ``mended`` it.

    Raises `WrongEnd` when an end does not behave as it should.
    """
    by_name = {commit.name: commit for commit in commits.line}

    def verdict(name: str) -> Verdict:
        try:
            with commits.exported(by_name[name]) as folder, open_engine(folder) as engine:
                found = judge(engine, wanted)
        except EngineError as error:  # its sources cannot be written out
            return Verdict("trouble", one_line(str(error)))
        # The folder is gone, and its name says nothing.
        reason = found.reason.replace(f"{folder}/", "").partition("; `sr-fuzz doctor")[0]
        return Verdict(found.kind, reason, found.signature, found.runs)

    return search(wanted.signature, list(by_name), verdict, on_event, mended=mended)


def _installed_release() -> str | None:
    package = installed_package()
    return version_in(package) if package is not None and is_installed(package) else None
