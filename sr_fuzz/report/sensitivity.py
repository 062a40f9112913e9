"""A sensitivity report: on the terminal a line for each fault while it is measured, then the table; and as a page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sr_fuzz.campaign.sensitivity import Comparison, Report, Row


def line(row: Row) -> str:
    """Progress."""
    if not row.detected:
        return f"{row.fault}: not detected: {row.why_not}"
    return f"{row.fault}: {row.detected_by} after {row.scripts} scripts; minimal: {row.minimal}"


def table(report: Report) -> RenderableType:
    """All rows, medians, and why what was not detected was not; a violation that was not expected is marked."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("fault", "reached", "triggered", "detected by"):
        rows.add_column(name, overflow="fold")
    for name in ("scripts", "s", "actions", "minimal", "runs", "confirmed"):
        rows.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        rows.add_row(row.fault, _yes(row, row.reached), _yes(row, row.triggered), *_detected(row))
    return Group(rows, Text(), *(Text(text) for text in _notes(report)))


def _yes(row: Row, count: int) -> str:
    return f"{count} of {row.scripts}" if count else "[bold]no[/]"


def _detected(row: Row) -> tuple[str, ...]:
    searched = (str(row.scripts), f"{row.search_s:.1f}")
    if not row.detected:
        return ("[bold red]no[/]", *searched)
    by = escape(row.detected_by) if row.as_expected else f"{escape(row.detected_by)} [bold](not expected)[/]"
    lengths = (str(row.first_actions), str(row.minimal_actions), str(row.reruns))
    return (by, *searched, *lengths, f"{row.reproduced} of {row.tried}")


def _notes(report: Report) -> list[str]:
    seen = [row for row in report.rows if row.detected]
    notes = [f"{len(seen)} of {len(report.rows)} faults detected on SGLang {report.sglang_version}."]
    if seen:
        notes.append(
            f"Medians: {report.median_s:.1f} s and {report.median_scripts:g} scripts until it is seen, "
            f"{report.median_actions:g} actions in the minimal script."
        )
    notes += [f"not detected: {row.fault}: {row.why_not}" for row in report.rows if not row.detected]
    return notes + [f"note: {row.fault}: {row.problem}" for row in report.rows if row.problem and row.scripts]


_COLUMNS = (
    "fault", "stands for", "reached", "triggered", "detected by",
    "scripts", "s", "actions", "minimal", "runs", "confirmed",
)  # fmt: skip


def markdown(report: Report) -> str:
    """The table as a page of documentation."""
    lines = [
        "# Which seeded bugs are seen, and how soon",
        "",
        f"Written by `sr-fuzz sensitivity --scripts {report.max_scripts} --seed {report.seed} --markdown "
        "docs/sensitivity.md`; what the columns",
        "mean is in [faults.md](faults.md). Seconds are those of one machine, booting included.",
        "",
        *_notes(report),
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for row in report.rows:
        counts = [f"{count} of {row.scripts}" if count else "no" for count in (row.reached, row.triggered)]
        found = (f"{row.scripts}", f"{row.search_s:.1f}", row.first_actions, row.minimal_actions, row.reruns)
        by = f"`{row.detected_by}`" + ("" if row.as_expected else " (not expected)") if row.detected else "**no**"
        cells = [f"`{row.fault}`", row.stands_for, *counts, by, *found, f"{row.reproduced} of {row.tried}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def comparison(changes: Comparison) -> RenderableType:
    """Against the baseline: what is worse first."""
    groups = (
        ("NOT DETECTED ANY MORE", changes.lost),
        ("slower", changes.slower),
        ("new", changes.gained),
        ("in the baseline only", changes.unmeasured),
    )
    lines = [f"{head}: {text}" for head, texts in groups for text in texts]
    return Group(*(Text(text) for text in lines or ["As in the baseline."]))
