"""Which mode runs on which release, and how exactly each invariant is checked there.

    python -m bench.matrix [--release 0.5.20] [--mode NAME] [--markdown docs/matrix.md] [--json FILE] [--seen FILE]

Each cell is what was observed: the release is fetched once into a cache, its scheduler is booted with the mode's
configurations, and a few scripts are played with all invariants on. Some releases are examined in parallel. The results
that an earlier run wrote with ``--json`` can be reused with ``--seen``; with ``--server`` the rows of several ranks are
played as well, which takes minutes each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sr_fuzz.strategies.draw import first
from sr_fuzz.strategies.scripts import scripts

from bench.modes import MODES, Mode
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script, ScriptError
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.releases import release_folder
from sr_fuzz.sglang_api.versions import RELEASES

# Enough to see a mode break at its first retraction, few enough for the whole matrix to take minutes.
MEMBERS, SCRIPTS = 2, 4
_SEED = 4


@dataclass
class Cell:
    """What was observed of one mode on one release."""

    state: str
    """``runs``, ``refused``, ``needs the server engine``, or ``not built``."""
    why: str = ""
    scripts: int = 0
    steps: int = 0
    exact: list[str] = field(default_factory=list)
    coarse: dict[str, str] = field(default_factory=dict)
    not_checked: dict[str, str] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.scripts += 1
        self.steps += outcome.steps
        self.coarse.update(outcome.coarse)
        self.not_checked.update(outcome.not_checked)
        self.exact = sorted({*self.exact, *outcome.checks} - self.coarse.keys())
        if outcome.violation is not None:
            found = f"{outcome.violation.invariant}: {outcome.violation.rule}"
            self.findings[found] = self.findings.get(found, 0) + 1

    @property
    def short(self) -> str:
        if self.state != "runs":
            return self.state
        parts = [f"{len(self.exact)} exact"]
        gaps = (("coarse", self.coarse), ("not checked", self.not_checked))
        parts += [f"{len(some)} {what}" for what, some in gaps if some]
        return "runs: " + ", ".join(parts) + (f"; found {len(self.findings)}" if self.findings else "")


def look(engine: Any, mode: Mode, *, server: bool, count: int) -> Cell:
    """Play a mode on an engine."""
    try:
        members = mode.members(MEMBERS)
    except ValueError as error:
        return Cell("not built", str(error).partition(";")[0])
    if any(config.world_size > 1 for config in members.values()) and not server:
        return Cell("server engine", "several ranks: run it with --server")
    cell = Cell("runs")
    for name, config in members.items():
        try:
            for script in _scripts(mode, config, count):
                cell.add(engine.run(script))
        except (EngineError, ScriptError) as error:
            told = str(error).splitlines()[0]
            if not cell.scripts:
                return Cell("refused", told)
            cell.why = f"{name}: {told}"
    return cell


def _scripts(mode: Mode, config: EngineConfig, count: int) -> list[Script]:
    if mode.actions is not None:
        return [Script(config, mode.actions)]
    drawn = first(scripts([config], exhausters=False), seed=_SEED, count=count + 1)
    # Hypothesis begins with the simplest script, which tells little.
    return drawn[1:] or drawn


def column(
    release: str, modes: Sequence[Mode], on_cell: Callable[[str, str, Cell], None], *, server: bool, count: int
) -> None:
    """Play the given modes on one release."""
    if not modes:
        return
    from sr_fuzz.engine.live.server import ServerEngine
    from sr_fuzz.engine.local.engine import LocalEngine

    try:
        sys_path = [str(release_folder(release)), str(Path.cwd())]
        make = ServerEngine if server else LocalEngine
        with make(sys_path=sys_path) as engine:
            for mode in modes:
                on_cell(release, mode.name, look(engine, mode, server=server, count=count))
    except EngineError as error:
        for mode in modes:
            on_cell(release, mode.name, Cell("refused", str(error).splitlines()[0]))


def markdown(cells: dict[str, dict[str, Cell]], releases: Sequence[str]) -> str:
    """The table, then the legend for its words."""
    lines = [
        "# What runs on which release",
        "",
        "Written by `python -m bench.matrix --markdown docs/matrix.md`: each cell was seen by booting that release and",
        "playing a few scripts of the mode on a CPU, with all invariants on. *n exact* counts the invariants whose",
        "whole formula was checked after each step, *coarse* those of which a part was, *not checked* those that could",
        "not be although the mode has what they are about; the lists below say which and why. The others have nothing",
        "to look at (recurrent states in a dense model, HTTP clients without a server). Rows of several ranks were",
        "played on SGLang's HTTP server (`--server`).",
        "",
        "| mode | " + " | ".join(releases) + " |",
        "|---" * (len(releases) + 1) + "|",
    ]
    for name, row in cells.items():
        lines.append(f"| {name} | " + " | ".join(row[release].short for release in releases) + " |")
    for title, told in (
        ("Refused, or not there", _whys(cells, releases)),
        ("Coarse", _reasons(cells, releases, "coarse")),
        ("Not checked", _reasons(cells, releases, "not_checked")),
        ("Found while playing", _findings(cells, releases)),
    ):
        lines += ["", f"## {title}", "", *(told or ["Nothing."])]
    return "\n".join(lines) + "\n"


def _grouped(
    cells: dict[str, dict[str, Cell]], releases: Sequence[str], texts: Callable[[Cell], list[str]]
) -> list[str]:
    """One line for each text: the modes and releases that it is about."""
    where: dict[str, dict[str, list[str]]] = {}
    for name, row in cells.items():
        for release in releases:
            for text in texts(row[release]):
                where.setdefault(text, {}).setdefault(name, []).append(release)
    lines = []
    for text, modes in where.items():
        # Modes of the same releases are listed together.
        spans: dict[str, list[str]] = {}
        for name, found in modes.items():
            spans.setdefault(_span(found, releases), []).append(name)
        told = "; ".join(f"{', '.join(names)} ({span})" for span, names in spans.items())
        lines.append(f"* {text}: {told}")
    return lines


def _span(found: Sequence[str], releases: Sequence[str]) -> str:
    if len(found) == len(releases) > 1:
        return "all releases"
    begin = releases.index(found[0])
    if len(found) > 2 and tuple(found) == tuple(releases[begin : begin + len(found)]):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(found)


def _whys(cells: dict[str, dict[str, Cell]], releases: Sequence[str]) -> list[str]:
    return _grouped(cells, releases, lambda cell: [cell.why] if cell.why else [])


def _reasons(cells: dict[str, dict[str, Cell]], releases: Sequence[str], kind: str) -> list[str]:
    return _grouped(cells, releases, lambda cell: [f"`{name}`: {why}" for name, why in getattr(cell, kind).items()])


def _findings(cells: dict[str, dict[str, Cell]], releases: Sequence[str]) -> list[str]:
    return _grouped(cells, releases, lambda cell: [f"`{found}`" for found in cell.findings])


def main(
    release: Annotated[list[str] | None, typer.Option(help="Only this release. Repeatable.")] = None,
    mode: Annotated[list[str] | None, typer.Option(help="Only this mode. Repeatable.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables there.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was seen there.")] = None,
    seen: Annotated[list[Path] | None, typer.Option(help="Cells of an earlier --json. Repeatable.")] = None,
    count: Annotated[int, typer.Option("--scripts", min=1, help="Scripts of each configuration.")] = SCRIPTS,
    server: Annotated[bool, typer.Option(help="On SGLang's HTTP server: minutes for each configuration.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Releases at once; each takes a core and 2 GB.")] = 2,
) -> None:
    """Boot and play every mode on every release."""
    releases = tuple(release or RELEASES)
    modes = [one for one in MODES if mode is None or one.name in mode]
    if not modes:
        raise typer.BadParameter(f"no such mode; there are {', '.join(one.name for one in MODES)}")
    cells: dict[str, dict[str, Cell]] = {one.name: {} for one in modes}
    for path in seen or ():
        for name, row in json.loads(path.read_text()).items():
            cells.get(name, {}).update({one: Cell(**told) for one, told in row.items()})
    console = Console(stderr=True)

    def on_cell(release: str, name: str, cell: Cell) -> None:
        cells[name][release] = cell
        console.print(f"{release}  {name}: {cell.short}", f"({cell.why})" if cell.why else "", markup=False)

    with ThreadPoolExecutor(jobs) as pool:
        missing = {one: [mode for mode in modes if one not in cells[mode.name]] for one in releases}
        list(pool.map(lambda one: column(one, missing[one], on_cell, server=server, count=count), releases))
    table = Table("mode", *releases)
    for name, row in cells.items():
        table.add_row(name, *(row[one].short for one in releases))
    Console().print(table)
    if json_file is not None:
        told = {name: {one: asdict(cell) for one, cell in row.items()} for name, row in cells.items()}
        json_file.write_text(json.dumps(told, indent=1) + "\n")
    if markdown_file is not None:
        markdown_file.write_text(markdown(cells, releases))


if __name__ == "__main__":
    typer.run(main)
