"""The contract with SGLang, compared with a release or a tree: what of `sr_fuzz.sglang_api.contract_table` is missing.

It is read from the source, so any tree can be asked, also one that cannot be imported here. Without a seam an engine
refuses to start, in one line that names it; any other name that is missing costs what its row says.
"""

from __future__ import annotations

import functools
from pathlib import Path

from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api.contract_table import CONTRACT, Name
from sr_fuzz.sglang_api.source_names import SourceNames
from sr_fuzz.sglang_api.versions import version_in


@functools.cache
def missing_rows(package: Path, rows: tuple[Name, ...] = CONTRACT) -> tuple[Name, ...]:
    """The rows whose name is lost in the package in that folder, and something with it; the seams first."""
    source = SourceNames(package)
    lost = (row for row in rows if (row.without or row.unchecked) and not row.is_in(source))
    return tuple(sorted(lost, key=lambda row: not row.seam))


def checked_version() -> str:
    """The version of the SGLang that this process imports. Raises `UnsupportedVersion` where it lacks a seam."""
    import sglang

    package = Path(sglang.__file__).parent
    check_seams(package)
    return version_in(package)


def check_seams(package: Path) -> None:
    """Raises `UnsupportedVersion`, one line, where one is missing."""
    lacking = [row.shown for row in missing_rows(package) if row.seam]
    if lacking:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UnsupportedVersion(
            f"SGLang {version_in(package)} cannot be played: sglang.{lacking[0]} is missing{more}; "
            f"`sr-fuzz doctor --sglang {package.parent}` lists the contract"
        )
