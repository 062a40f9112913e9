"""The version of SGLang, and whether this project was tested with it.

Where possible, differences between releases are detected by what a release *has* (a parameter, an attribute), not by
its number. No version is refused because of its number. Changes by release:

=========  ==========================================================================================
release    what changed
=========  ==========================================================================================
0.5.17     configuration is published process-wide before anything reads it
0.5.19     a request's KV bookkeeping moved from the request into ``req.kv``; the unified tree, whose
           nodes go by integer ids, replaced ``RadixCache``, whose nodes are handed out themselves;
           a free group that is closed is None instead of a stale list
0.5.20     schedule policy ``hrrn``; pages freed late are staged in a list of tensors; model
           configurations are registered with ``exist_ok``, so that a newer ``transformers`` will do
0.5.21     the scheduler takes two arguments; ranks are published instead of passed
0.5.22     a request's tree lock is an object (``req.lock``) instead of following from ``last_node``;
           pages of more than one token are allocated without Triton where there is none
=========  ==========================================================================================
"""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from collections.abc import Sequence
from importlib import metadata, util
from importlib.machinery import PathFinder
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.specifiers import SpecifierSet
from packaging.version import Version

RELEASES = ("0.5.16", "0.5.17", "0.5.18", "0.5.19", "0.5.20", "0.5.21", "0.5.22", "0.5.23")
"""The releases that ``make releases`` plays, oldest first. A new release is added here."""

TESTED = RELEASES[0], RELEASES[-1]
"""The range of tested versions."""

_LONGEST = 80
"""Maximum number of characters of a version; versions of setuptools-scm are half as long."""

_ASSIGNED = re.compile(r"^__version__\b.*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


def sglang_version() -> str:
    """Return the version of the SGLang that this process imports."""
    import sglang

    return version_in(Path(sglang.__file__).parent)


def installed_package() -> Path | None:
    """Return the folder of the ``sglang`` that this process would import, without importing it; None if there is none.
    """
    return imported_package(())


def imported_package(first: Sequence[str]) -> Path | None:
    """Return the folder of the ``sglang`` that a process with these folders first on its path would import.

    A folder without ``__init__.py``, such as a checkout of that name in the current folder, is no package: an import
    finds it only where there is none.
    """
    spec = PathFinder.find_spec("sglang", [*first, *sys.path]) or util.find_spec("sglang")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def is_installed(package: Path) -> bool:
    """Whether that package lies where this interpreter installs packages; any other is found by a path."""
    return any(package.is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib"))


def version_in(package: Path) -> str:
    """Return the version of the package in that folder, which need not be the installed one.

    The version of a source tree without a built ``_version.py`` and without a distribution on the path that was built
    from it is ``unknown (tree PATH)``: SGLang's own ``__version__`` would be that of another installed distribution.
    """
    try:
        found = _ASSIGNED.search((package / "_version.py").read_text(errors="replace"))
    except OSError:
        found = None
    if found is not None:
        # It is shown in one line, whatever the file contains.
        return "".join(filter(str.isprintable, found[1]))[:_LONGEST]
    beside = metadata.distributions(name=package.name, path=[str(package.parent)])
    for distribution in [*beside, *metadata.distributions(name=package.name)]:
        if package.resolve() in _packages_of(distribution, package.name):
            return distribution.version
    return f"unknown (tree {package.parent})"


def _packages_of(distribution: metadata.Distribution, name: str) -> set[Path]:
    """Return the folders of a distribution's packages: beside its metadata, or the target of an editable install."""
    folders = [Path(str(distribution.locate_file(name)))]
    try:
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        direct = {}
    if direct.get("dir_info", {}).get("editable"):
        project = Path(unquote(urlparse(direct["url"]).path))
        folders += [project / name, project / "src" / name, project / "python" / name]
    return {folder.resolve() for folder in folders}


def untested(version: str) -> str | None:
    """Return one line on a version that is not tested; None for a tested version."""
    low, high = TESTED
    try:
        tested = Version(low) <= Version(Version(version).base_version) <= Version(high)
    except ValueError:  # InvalidVersion, or a number with too many digits for Python
        tested = False
    # A development version counts as its release, and so does a tree with changes on top of a release.
    return None if tested else f"SGLang {' '.join(version.split())}: this sr_fuzz was tested with {low} to {high}"


def releases_between(first: str | None = None, last: str | None = None) -> tuple[str, ...]:
    """Return ``first``, the tested releases after it, and ``last``, oldest first; None for the oldest and the newest.

    Raises ``ValueError``, one line, for what is no version, and where ``first`` comes after ``last``.
    """
    ends = [first or RELEASES[0], last or RELEASES[-1]]
    for end in ends:
        try:
            Version(end)
        except ValueError:
            raise ValueError(f"{end[:_LONGEST]!r}: no version of SGLang such as 0.5.20") from None
    low, high = map(Version, ends)
    if low > high:
        raise ValueError(f"{ends[0]} comes after {ends[1]}")
    versions = {Version(one) for one in (*RELEASES, *ends)}
    return tuple(str(one) for one in sorted(versions) if low <= one <= high)


def is_among(version: str | None, releases: str) -> bool | None:
    """Whether a version specifier (PEP 440) contains that version; None if the version is not known.

    Raises ``packaging.specifiers.InvalidSpecifier``.
    """
    specifier = SpecifierSet(releases)
    try:
        return specifier.contains(Version(version or ""), prereleases=True)
    except ValueError:
        return None
