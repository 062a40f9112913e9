"""Compares the contract with a release or a tree: which names of `sr_fuzz.sglang_api.contract_table` are missing.

The names are read from the source, so this also works for a tree that cannot be imported here. If a seam is missing the
engine refuses to start, with one line that names it; the effect of any other missing name is in its row.
"""

from __future__ import annotations

import functools
from pathlib import Path

from sr_fuzz.script.errors import EngineError, UnsupportedVersion
from sr_fuzz.sglang_api.contract_table import CONTRACT, Name
from sr_fuzz.sglang_api.source_names import SourceNames
from sr_fuzz.sglang_api.versions import version_in


def missing_rows(package: Path, rows: tuple[Name, ...] = CONTRACT) -> tuple[Name, ...]:
    """Return the rows whose name is missing in the package in that folder and has an effect, seams first."""
    return _compared(package, rows)[0]


def unreadable(package: Path) -> tuple[str, ...]:
    """Return why modules that the contract names cannot be read, such as a syntax error, one line each."""
    return _compared(package, CONTRACT)[1]


@functools.cache
def _compared(package: Path, rows: tuple[Name, ...]) -> tuple[tuple[Name, ...], tuple[str, ...]]:
    source = SourceNames(package)
    lost = [row for row in rows if (row.without or row.unchecked) and not row.is_in(source)]
    return tuple(sorted(lost, key=lambda row: not row.seam)), tuple(source.unreadable.values())


def checked_version() -> str:
    """Return the version of the SGLang that this process imports. Raises `UnsupportedVersion` if it lacks a seam."""
    import sglang

    package = Path(sglang.__file__).parent
    check_seams(package)
    return version_in(package)


def check_seams(package: Path) -> None:
    """Raise `UnsupportedVersion`, one line, if a seam is missing; `EngineError` if its source is broken."""
    if broken := unreadable(package):
        raise EngineError(f"cannot import SGLang: {broken[0]}")
    lacking = [row.shown for row in missing_rows(package) if row.seam]
    if lacking:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UnsupportedVersion(
            f"SGLang {version_in(package)} cannot be played: sglang.{lacking[0]} is missing{more}; "
            f"`sr-fuzz doctor --sglang {package.parent}` lists the contract"
        )
