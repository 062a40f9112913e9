"""Output of a sensitivity report: on the terminal a line for each measured fault, then the table; and as a page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sr_fuzz.campaign.sensitivity import Comparison, Report, Search


def line(one: Search) -> str:
    """Return the progress line of one measured fault."""
    if not one.detected:
        return f"{one.fault}: not detected: {one.why_not}"
    return f"{one.fault}: {one.detected_by} after {one.scripts} scripts; minimal: {one.minimal}"


def table(report: Report) -> RenderableType:
    """Return all rows, the medians, and the reasons why faults were not detected; unexpected violations are marked."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("fault", "reached", "triggered", "detected by"):
        rows.add_column(name, overflow="fold")
    for name in ("scripts", "s", "actions", "minimal", "runs", "confirmed"):
        rows.add_column(name, justify="right", no_wrap=True)
    for one in report.searches:
        rows.add_row(one.fault, _yes(one, one.reached), _yes(one, one.triggered), *_detected(one))
    return Group(rows, Text(), *(Text(text) for text in _notes(report)))


def _yes(one: Search, count: int) -> str:
    return f"{count} of {one.scripts}" if count else "[bold]no[/]"


def _detected(one: Search) -> tuple[str, ...]:
    searched = (str(one.scripts), f"{one.search_s:.1f}")
    if not one.detected:
        return ("[bold red]no[/]", *searched)
    by = escape(one.detected_by) if one.as_expected else f"{escape(one.detected_by)} [bold](not expected)[/]"
    lengths = (str(one.first_actions), str(one.minimal_actions), str(one.reruns))
    return (by, *searched, *lengths, f"{one.reproduced} of {one.tried}")


def _notes(report: Report) -> list[str]:
    seen = [one for one in report.searches if one.detected]
    notes = [f"{len(seen)} of {len(report.searches)} faults detected on SGLang {report.sglang_version}."]
    if seen:
        notes.append(
            f"Medians: {report.median_s:.1f} s and {report.median_scripts:g} scripts until it is seen, "
            f"{report.median_actions:g} actions in the minimal script."
        )
    notes += [f"not detected: {one.fault}: {one.why_not}" for one in report.searches if not one.detected]
    return notes + [f"note: {one.fault}: {one.problem}" for one in report.searches if one.problem and one.scripts]


_COLUMNS = (
    "fault", "stands for", "reached", "triggered", "detected by",
    "scripts", "s", "actions", "minimal", "runs", "confirmed",
)  # fmt: skip


def markdown(report: Report) -> str:
    """Return the table as a page of documentation."""
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
    for one in report.searches:
        counts = [f"{count} of {one.scripts}" if count else "no" for count in (one.reached, one.triggered)]
        found = (f"{one.scripts}", f"{one.search_s:.1f}", one.first_actions, one.minimal_actions, one.reruns)
        by = f"`{one.detected_by}`" + ("" if one.as_expected else " (not expected)") if one.detected else "**no**"
        cells = [f"`{one.fault}`", one.stands_for, *counts, by, *found, f"{one.reproduced} of {one.tried}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def comparison(changes: Comparison) -> RenderableType:
    """Return the comparison with the baseline; what became worse comes first."""
    groups = (
        ("NOT DETECTED ANY MORE", changes.lost),
        ("slower", changes.slower),
        ("new", changes.gained),
        ("in the baseline only", changes.unmeasured),
    )
    lines = [f"{head}: {text}" for head, texts in groups for text in texts]
    return Group(*(Text(text) for text in lines or ["As in the baseline."]))
