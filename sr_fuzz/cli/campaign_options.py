"""Options that all campaigns have, and what is refused of them before an engine starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_fuzz.cli.errors import InputError

if TYPE_CHECKING:
    from sr_fuzz.bugs.known import Known

ConfigsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A configuration or a set of them (see `sr-fuzz configs`). Repeatable."),
]
KnownOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Tests that `emit --cause` has marked: only counted, as the bugs known to sr_fuzz are."
    ),
]
AllNewOption = Annotated[
    bool,
    typer.Option(
        "--all-new",
        help="Without the list of known bugs: each is found, minimised and written out as new, once; not those that an "
        "earlier campaign has left in the folder of findings.",
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append each event to FILE as a line of JSON, for other programs."),
]
JUnitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the result to FILE as JUnit XML, when it ends.")
]
GitHubOption = Annotated[
    bool | None,
    typer.Option(
        "--github/--no-github",
        help="Annotations and a job summary for GitHub. If not given, where GitHub Actions run it.",
        show_default=False,
    ),
]
MaxScriptsOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many scripts.")]
ExhaustersOption = Annotated[
    bool | None,
    typer.Option(
        "--exhausters/--no-exhausters",
        help="Scripts that hold memory, rows or locks: all or none of them. If not given, one in ten.",
        show_default=False,
    ),
]
CanaryOption = Annotated[
    bool | None,
    typer.Option(
        "--canary/--no-canary",
        help="Also look for a bug that is seeded in a second engine: must be found. If not given, without --fault.",
        show_default=False,
    ),
]


def check_canary(canary: bool | None, fault: list[str] | None) -> None:
    """Refuse a canary beside a seeded fault."""
    if canary and fault:
        raise InputError("--canary: looked for on an engine without other faults, so not with --fault")


def check_all_new(known: Path | None, example: bool = False) -> None:
    """Refuse what does not go with ``--all-new``."""
    if known is not None or example:
        option = "--known" if known is not None else "--example"
        raise InputError(f"--all-new: takes the known bugs away, so not with {option}")


def known_bugs(folder: Path | None, sglang_version: str | None = None, *, all_new: bool = False) -> Known:
    """Return the known bugs of a release, or of any; none where all are to be new. Refuses what is no folder."""
    from sr_fuzz.bugs.known import Known, all_known

    if all_new:
        return Known([])
    if folder is not None and not folder.is_dir():
        raise InputError(f"--known: {folder} is not a folder")
    return all_known(folder, sglang_version)
