"""Which known bug shows on which release.

    python -m bench.bugs [--release 0.5.20] [--markdown docs/findings/releases.md]

The script of each known bug is played once on each release. A cell is what was observed: the bug shows when the script
breaks what its file names (``signature``, wherever in that release's source, or ``also_seen_as``). Scripts that need a
whole server are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.matrix import RELEASES
from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.bugs.known import all_known
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.outcome import signature
from sr_fuzz.outcome.files import Case, load
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.releases import release_folder

SHOWS, SILENT, REFUSED = "shows", "-", "not there"


def column(release: str, cases: dict[Path, Case], on_cell: Callable[[Path, str, str], None]) -> None:
    """Play all scripts on one release."""
    known = all_known(None)
    with LocalEngine(sys_path=[str(release_folder(release)), str(Path.cwd())]) as engine:
        for path, case in cases.items():
            try:
                violation = engine.run(case.script).violation
            except EngineError:
                on_cell(path, release, REFUSED)
                continue
            if violation is None:
                on_cell(path, release, SILENT)
                continue
            found, rule = signature(violation, case.script.config), f"{violation.invariant}:{violation.rule}"
            listed = path in {bug for bug, _ in known.candidates(found)}
            same = (case.signature or "").startswith(f"{rule}:")
            on_cell(path, release, SHOWS if listed or same else f"`{violation.invariant}: {violation.rule}`")


def markdown(cells: dict[Path, dict[str, str]], releases: Sequence[str]) -> str:
    lines = [
        "# Which known bug shows on which release",
        "",
        "Written by `python -m bench.bugs --markdown docs/findings/releases.md`: the script of each known bug",
        f"was played on each release. *{SHOWS}*: it broke what its file names; *{SILENT}*: nothing; *{REFUSED}*: the",
        "release has no such configuration. A rule in a cell is what it broke instead: the same bug, as another",
        "invariant sees it.",
        "",
        "| bug | " + " | ".join(releases) + " |",
        "|---" * (len(releases) + 1) + "|",
    ]
    lines += [f"| `{path.stem}` | " + " | ".join(row[one] for one in releases) + " |" for path, row in cells.items()]
    return "\n".join(lines) + "\n"


def _cases() -> dict[Path, Case]:
    cases = {path: load(path) for path in shipped()}
    here = {path: case for path, case in cases.items() if case.script.config.world_size == 1}
    return {path: case for path, case in here.items() if not case.signature.startswith("http_answers")}


def main(
    release: Annotated[list[str] | None, typer.Option(help="Only this release. Repeatable.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the table there.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Releases at once; each takes a core and 2 GB.")] = 2,
) -> None:
    """Play every regression on every release."""
    releases, cases, console = tuple(release or RELEASES), _cases(), Console(stderr=True)
    cells: dict[Path, dict[str, str]] = {path: {} for path in cases}

    def on_cell(path: Path, version: str, told: str) -> None:
        cells[path][version] = told
        console.print(f"{version}  {path.stem}: {told}", markup=False)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda one: column(one, cases, on_cell), releases))
    if markdown_file is not None:
        markdown_file.write_text(markdown(cells, releases))
    else:
        print(markdown(cells, releases))


if __name__ == "__main__":
    typer.run(main)
