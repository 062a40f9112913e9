"""Output of statistics as tables: kinds in rows, configurations in columns, and the kinds never reached at the end."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sr_fuzz.campaign.statistics import Statistics

# A column is as wide as its longest number or the longest word of its name, plus two blanks.
_GAP = 2


def statistics_report(found: Statistics, width: int) -> RenderableType:
    """Split the configurations into as many tables as ``width`` columns of text require; then list the unreached kinds.

    An empty cell means that the kind cannot occur on that configuration; ``never`` that it occurred nowhere in the run.
    """
    parts: list[RenderableType] = []
    for table in _tables(found, width):
        parts += [table, Text()]
    per_script = found.elapsed_s / found.scripts if found.scripts else 0.0
    parts.append(
        Text(
            f"{found.scripts} scripts in {found.elapsed_s:.1f} s ({1000 * per_script:.0f} ms each), seed {found.seed}, "
            f"SGLang {found.sglang_version}"
        )
    )
    for name, config in found.configs.items():
        parts += [Text(f"violations on {name}: {count} x {sig}") for sig, count in config.violations.items()]
    dead = ", ".join(found.never_reached)
    parts.append(Text(f"never reached: {dead}" if dead else "everything was reached", style="bold"))
    return Group(*parts)


def _tables(found: Statistics, width: int) -> Iterator[Table]:
    first = max(map(len, found.kinds)) + _GAP + len("1,000,000") + _GAP
    names: list[str] = []
    used = first
    for name in found.configs:
        takes = _column_width(found, name) + _GAP
        if names and used + takes > width:
            yield _table(found, names)
            names, used = [], first
        names.append(name)
        used += takes
    yield _table(found, names)


def _column_width(found: Statistics, name: str) -> int:
    longest = max((len(f"{count:,}") for count in found.configs[name].reach.values()), default=1)
    return max(longest, *(len(word) + 1 for word in name.split("-")))


def _table(found: Statistics, names: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True, vertical="bottom")
    for name in names:
        table.add_column(escape(name.replace("-", "-\n")), justify="right", no_wrap=True, vertical="bottom")
    counts = [str(found.configs[name].scripts) for name in names]
    table.add_row("scripts", f"{found.scripts:,}", *counts)
    group = ""
    for kind in found.kinds:
        if kind.partition(".")[0] != group:
            group = kind.partition(".")[0]
            table.add_section()
        dead = kind in found.never_reached
        total = "never" if dead else f"{found.total.get(kind, 0):,}"
        cells = [found.configs[name].count(kind) for name in names]
        shown = ["" if cell is None else f"{cell:,}" for cell in cells]
        table.add_row(kind, total, *shown, style="bold red" if dead else None)
    return table


def print_statistics(console: Console, found: Statistics) -> None:
    """Print the report in the width of the console."""
    console.print(statistics_report(found, console.width))
