"""What reports for other programs say of a finding, as lines of plain text."""

from __future__ import annotations

from sr_fuzz.campaign.events import FindingTally
from sr_fuzz.report.bisection import history_lines
from sr_fuzz.report.words import first_line, plural
from sr_fuzz.script.text import text


def title(tally: FindingTally) -> str:
    """Return what it is in one line."""
    violation = tally.finding.violation if tally.finding is not None else tally.violation
    return f"{violation.invariant}: {violation.rule}: {first_line(violation.message)}"


def details(tally: FindingTally) -> list[str]:
    """Return how often it was seen and reproduced, its script, its cause, its history, and its test."""
    lines = [f"seen {plural(tally.count, 'time')}"]
    if (finding := tally.finding) is not None:
        lines += [finding.reliability if finding.tried else "not run again", text(finding.script)]
    lines += [f"cause: {tally.reason}"] if tally.reason else []
    lines += history(tally)
    return [*lines, str(tally.path)] if tally.path is not None else lines


def history(tally: FindingTally) -> list[str]:
    """Return which releases and commits have it, as far as that was played."""
    return history_lines(tally.releases, tally.trees, tally.commits) if tally.releases is not None else []
