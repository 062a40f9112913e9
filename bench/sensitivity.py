"""How soon is each seeded fault seen, by which invariant, and how short does its script become?

For each fault of ``tests/faults/seeded.py`` the same random scripts are played, in the same order, until one of them
shows a violation that it does not show on the healthy scheduler. That script is minimised and the result confirmed.

    python bench/sensitivity.py [--fault NAME]... [--seed N] [--scripts N] [--time SECONDS] [--json FILE]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the faults are part of the tests, which are not installed

from sr_fuzz.confirm import confirm  # noqa: E402
from sr_fuzz.engine.local import LocalEngine  # noqa: E402
from sr_fuzz.errors import EngineError  # noqa: E402
from sr_fuzz.faults import Fault  # noqa: E402
from sr_fuzz.minimise import minimise  # noqa: E402
from sr_fuzz.outcome import Outcome, signature  # noqa: E402
from sr_fuzz.report.terminal import make_console  # noqa: E402
from sr_fuzz.script import Script, script_hash  # noqa: E402
from sr_fuzz.script_text import text  # noqa: E402
from strategies.configs import CONFIG_SETS  # noqa: E402
from strategies.fresh import BACKEND  # noqa: E402
from strategies.scripts import scripts as script_strategy  # noqa: E402
from tests.faults.seeded import FAULTS  # noqa: E402

# A hang takes it whole in every run. Scripts take a tenth of a second, so five are enough on a busy machine too.
LIMIT_S = 5.0

# Only hangs come near: sixty runs of one would take five minutes.
PATIENCE_S = 60.0


class Row(msgspec.Struct):
    """What was measured for one fault. Without ``detected_by`` it was not seen."""

    fault: str
    stands_for: str
    expected: tuple[str, ...]
    scripts: int = 0
    """Scripts played, the one that showed it included."""
    search_s: float = 0.0
    """Time until it was seen, booting the configurations included."""
    detected_by: str = ""
    """``invariant:rule``."""
    as_expected: bool = False
    first_actions: int = 0
    reruns: int = 0
    """Runs the minimiser used."""
    minimise_s: float = 0.0
    minimal_actions: int = 0
    minimal: str = ""
    reproduced: int = 0
    tried: int = 0


class Report(msgspec.Struct):
    """The JSON file."""

    sglang_version: str
    seed: int
    max_scripts: int
    rows: list[Row]


def main(
    fault: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this fault. Repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Draws other scripts.")] = 0,
    scripts: Annotated[int, typer.Option(min=1, metavar="N", help="Most scripts for a fault.")] = 60,
    time_s: Annotated[float, typer.Option("--time", min=1, metavar="SECONDS", help="Longest search for a fault.")] = 60,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the rows as JSON.")] = None,
) -> None:
    """Measure how soon each seeded fault is seen."""
    unknown = sorted(set(fault or ()) - set(FAULTS))
    if unknown:
        raise typer.BadParameter(f"no fault {unknown[0]!r}; there are {', '.join(FAULTS)}", param_hint="--fault")
    if json is not None and not json.absolute().parent.is_dir():
        raise typer.BadParameter(f"{json.absolute().parent} is not a folder", param_hint="--json")
    console = make_console()
    drawn = draw(seed, scripts)
    rows: list[Row] = []
    try:
        with LocalEngine(limit_s=LIMIT_S, sys_path=[str(ROOT)]) as healthy:
            report = Report(healthy.sglang_version, seed, scripts, rows)
            on_healthy: dict[str, Outcome] = {}
            for seeded in [FAULTS[name] for name in fault or FAULTS]:
                with healthy.with_faults(seeded.path) as engine:
                    rows.append(measure(seeded, engine, healthy, on_healthy, drawn, time_s))
                console.print(line(rows[-1]), markup=False)
    except EngineError as error:
        typer.echo(f"sensitivity: error: {str(error).splitlines()[0]}", err=True)
        raise typer.Exit(2) from None
    console.print(table(rows))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def draw(seed: int, count: int) -> list[Script]:
    """The first ``count`` scripts over the default configurations; the same ``seed`` draws the same."""
    drawn: dict[str, Script] = {}

    # Everything is given, so that no active profile has a say.
    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        backend=BACKEND,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(script_strategy(list(CONFIG_SETS["default"].values())))
    def collect(script: Script) -> None:
        drawn.setdefault(script_hash(script), script)

    collect()
    return list(drawn.values())


def measure(
    seeded: Fault,
    engine: LocalEngine,
    healthy: LocalEngine,
    on_healthy: dict[str, Outcome],
    drawn: Sequence[Script],
    time_s: float,
) -> Row:
    """Search for one fault; ``on_healthy`` remembers the runs on the healthy scheduler, by script."""
    row = Row(seeded.name, seeded.stands_for, seeded.expected)
    started = time.monotonic()
    for script in drawn:
        if time.monotonic() - started > time_s:
            break
        row.scripts += 1
        outcome = engine.run(script)
        row.search_s = time.monotonic() - started
        if outcome.violation is None:
            continue
        found = signature(outcome.violation, script.config)
        key = script_hash(script)
        if key not in on_healthy:
            on_healthy[key] = healthy.run(script)
        known = on_healthy[key].violation
        # What the healthy scheduler does too is a finding, but not this one.
        if known is None or signature(known, script.config) != found:
            shrink(row, script, outcome, engine)
            break
    return row


def shrink(row: Row, script: Script, outcome: Outcome, engine: LocalEngine) -> None:
    """Minimise and confirm, and note down what came of it."""
    violation = outcome.violation
    assert violation is not None
    row.detected_by = f"{violation.invariant}:{violation.rule}"
    row.as_expected = violation.invariant in row.expected
    row.first_actions = len(script.actions)
    started = time.monotonic()
    give_up = started + PATIENCE_S
    small = minimise(script, violation, engine.run, outcome=outcome, stop=lambda: time.monotonic() > give_up)
    row.minimise_s = time.monotonic() - started
    row.reruns, row.minimal_actions, row.minimal = small.runs, len(small.script.actions), text(small.script)
    row.reproduced, row.tried = confirm(small.script, signature(violation, script.config), engine.run)


def line(row: Row) -> str:
    """Progress: one line for each fault."""
    if not row.detected_by:
        return f"{row.fault}: not seen in {row.scripts} scripts"
    return f"{row.fault}: {row.detected_by} after {row.scripts} scripts; minimal: {row.minimal}"


def table(rows: Sequence[Row]) -> Table:
    """All rows; a violation of an invariant that was not expected is marked."""
    result = Table(title="Seeded faults")
    for name in ("fault", "seen by"):
        result.add_column(name, overflow="fold")
    for name in ("scripts", "s", "actions", "re-runs", "s", "minimal", "confirmed"):
        result.add_column(name, justify="right")
    for row in rows:
        if not row.detected_by:
            result.add_row(row.fault, "[bold]not seen[/]", str(row.scripts), f"{row.search_s:.1f}", *[""] * 5)
            continue
        by = row.detected_by if row.as_expected else f"{row.detected_by} [bold](not expected)[/]"
        confirmed = f"{row.reproduced} of {row.tried}"
        result.add_row(
            row.fault, by, str(row.scripts), f"{row.search_s:.1f}", str(row.first_actions), str(row.reruns),
            f"{row.minimise_s:.1f}", str(row.minimal_actions), confirmed,
        )  # fmt: skip
    return result


if __name__ == "__main__":
    typer.run(main)
