"""Runs contract, smoke scripts, known bugs and fixes on each supported release of SGLang: ``make releases``.

    python ci/releases.py [--release VERSION ...] [--workers N]

The exit status is 0 when every cell is green, 1 otherwise; pytest's output for a red cell is printed at once.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from sr_fuzz.faults.names import fault_rows
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.contract import missing_rows
from sr_fuzz.sglang_api.contract_table import CONTRACT
from sr_fuzz.sglang_api.sources import sglang_folder
from sr_fuzz.sglang_api.versions import RELEASES

SUITES = {
    "smoke scripts": ["tests/scripted/test_core.py", "tests/engine/test_modes.py"],
    "known bugs": ["tests/regressions"],
    "fixes": ["tests/faults/test_fixes.py"],
}
"""What pytest runs on each release, by column."""


class Cell(NamedTuple):
    ok: bool
    told: str


def contract(release: str) -> Cell:
    """Green when no name is missing that invariants, actions or engines need; a fix may be for later releases only."""
    package = sglang_folder(release) / "sglang"
    lost = missing_rows(package)
    faults = missing_rows(package, fault_rows(release))
    for row in (*lost, *faults):
        print(f"{release}: {row.lacking}; {row.cost}", flush=True)
    kept = len(CONTRACT) + len(fault_rows(release)) - len(lost) - len(faults)
    return Cell(not lost, f"{kept} names" + (f", {len(lost) + len(faults)} not" if lost or faults else ""))


def suite(release: str, paths: list[str], workers: int) -> Cell:
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=ci", "-n", str(workers), "--dist=loadfile",
               "--sr-sglang", release, *paths]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    summaries = re.findall(r"^(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", ran.stdout, re.MULTILINE)
    if ran.returncode != 0:
        print(f"{release}: {' '.join(paths)}\n{ran.stdout}\n{ran.stderr}", flush=True)
    return Cell(ran.returncode == 0, summaries[-1] if summaries else f"exit status {ran.returncode}")


def look(release: str, workers: int) -> dict[str, Cell]:
    try:
        cells = {"contract": contract(release)}
    except EngineError as error:
        return {"contract": Cell(False, str(error))}
    for name, paths in SUITES.items():
        cells[name] = suite(release, paths, workers)
        print(f"{release}: {name}: {cells[name].told}", flush=True)
    return cells


def main(
    release: Annotated[list[str] | None, typer.Option(help="Only this one. Repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of pytest.")] = 2,
) -> None:
    """Run all of them and print a table."""
    seen = {one: look(one, workers) for one in release or RELEASES}
    table = Table("release", "contract", *SUITES)
    for one, cells in seen.items():
        marks = (cells.get(name, Cell(False, "not played")) for name in ("contract", *SUITES))
        table.add_row(one, *(f"[{'green' if cell.ok else 'red'}]{cell.told}[/]" for cell in marks))
    Console(width=160 if not sys.stdout.isatty() else None).print(table)
    raise typer.Exit(0 if all(cell.ok for cells in seen.values() for cell in cells.values()) else 1)


if __name__ == "__main__":
    typer.run(main)
