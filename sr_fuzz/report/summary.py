"""Output of the summary at the end of a campaign: what ran, what was not checked, what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sr_fuzz.campaign.events import FindingTally, Summary
from sr_fuzz.emit.commands import pytest_command, sr_fuzz_command
from sr_fuzz.emit.explanation import not_for_sglang
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import finding_file
from sr_fuzz.report.findings import history
from sr_fuzz.report.words import first_line, plural
from sr_fuzz.script import to_json
from sr_fuzz.script.text import text

# A short campaign leaves many kinds unreached, which says little about the strategies.
_SHOWN_KINDS = 12


def summary(done: Summary) -> RenderableType:
    """Return a table of the configurations that ran, and the findings, new ones first."""
    parts: list[RenderableType] = [Text(), _configurations(done), Text(), Text(_totals(done))]
    parts += [Text(line) for line in _gap_lines(done)]
    if done.canary:
        parts.append(_canary(done))
    if done.never_reached:
        parts.append(Text(f"Never reached: {_some(done.never_reached)}."))
    parts += [Text(line) for line in _trouble_lines(done)]
    parts += [Text(line) for line in _waiting_lines(done)]
    if not done.findings:
        return Group(*parts, Text(_nothing_found(done)))
    unsure = f", {len(done.suspects)} suspect" if done.suspects else ""
    unsure += f", {len(done.unreproduced)} seen and not reproduced" if done.unreproduced else ""
    parts.append(Text(f"Findings: {len(done.new)} new, {len(done.known)} known{unsure}.", style="bold"))
    for tally in done.new:
        parts += [Text(f"  {line}") for line in _new_lines(tally)]
    parts += [Text(f"  {line}") for tally in done.suspects for line in _suspect_lines(tally)]
    parts += [Text(f"  {line}") for tally in done.unreproduced for line in _unreproduced_lines(tally)]
    parts += [Text(f"  not played: {fix}: {why}") for fix, why in done.unplayed_fixes.items()]
    for reason in dict.fromkeys(tally.reason for tally in done.known):
        faces = [tally for tally in done.known if tally.reason == reason]
        parts += [Text(f"  {line}") for line in _known_lines(faces)]
    return Group(*parts)


def how_to_go_on(done: Summary, out: Path) -> list[str]:
    """Return the commands for a new finding, or a suspect: its test, the same in SGLang's style, an issue's text."""
    for tally in [*done.new, *done.suspects]:
        if tally.path is None or tally.finding is None:
            continue
        finding, data = tally.finding, finding_file(tally.path)
        lines = [f"The repros are in {out}; each says how to read it, and where to look. To run one:"]
        lines += [f"  {pytest_command(finding, tally.path)}"]
        if not_for_sglang(finding) is None:
            lines += ["The same as a test for SGLang's own suite, where sr_fuzz is not needed:"]
            lines += [f"  {sr_fuzz_command(finding, 'emit', data, '--format', 'sglang')}"]
        if finding.reproduced and not finding.faults:
            lines += ["As a text for an issue of SGLang:"]
            lines += [f"  {sr_fuzz_command(finding, 'emit', data, '--format', 'issue')}"]
        return lines
    return []


def _totals(done: Summary) -> str:
    return (
        f"{plural(done.scripts, 'script')} in {done.elapsed_s:.1f} s ({done.scripts_per_s:.1f}/s while searching), "
        f"{done.steps:,} steps, {done.forwards:,} forwards; "
        f"{plural(len(done.checks), 'invariant')} checked {sum(done.checks.values()):,} times."
    )


_GAP_WORDS = {
    "not_played": "not played",
    "not_checked": "not checked",
    "coarse": "checked in part",
    "not_counted": "not counted",
}


def _gap_lines(done: Summary) -> list[str]:
    """Return lines on what was left out, on which the findings say nothing."""
    lines = []
    for kind, what in _GAP_WORDS.items():
        for gap in getattr(done, kind):
            all_of_them = len(gap.configs) == len(done.configs) > 1
            where = "all configurations" if all_of_them else ", ".join(gap.configs)
            seen = f" in {plural(gap.scripts, 'script')} ({where})" if gap.scripts else ""
            lines.append(f"{what}: {gap.what}{seen}: {gap.reason}")
    if done.no_subject:
        lines.append(f"nothing here to check for {', '.join(sorted(done.no_subject))}")
    return lines


def _trouble_lines(done: Summary) -> list[str]:
    """Return lines on errors that are no fault of SGLang, with the folder in which they are kept."""
    lines = []
    for trouble in done.troubles:
        where = f" ({trouble.path})" if trouble.path is not None else ""
        lines.append(f"trouble while {trouble.doing}, {plural(trouble.count, 'time')}: {trouble.what}{where}")
    return lines


def _waiting_lines(done: Summary) -> list[str]:
    """Return lines on violations that the campaign ended before looking at."""
    lines = [f"not followed up: {found}, seen {plural(count, 'time')}" for found, count in done.waiting.items()]
    lines += ["The next campaign there begins with what was not followed up."] if lines else []
    if done.uncounted:
        lines.append(f"not counted: {plural(done.uncounted, 'violation')} of signatures that are known")
    return lines


def _nothing_found(done: Summary) -> str:
    """Return a line for a campaign without findings; it claims nothing for scripts that were not played."""
    if not done.scripts:
        return "No script was played."
    if done.waiting or done.uncounted:
        return "Nothing was followed up to its end."
    unplayed = sum(trouble.count for trouble in done.troubles if trouble.doing == "playing")
    if not unplayed and not done.gave_up:
        return "No violation found."
    left = f"; {plural(unplayed, 'script')} could not be played" if unplayed else ""
    return f"No violation found in the {plural(done.scripts, 'script')} that were played{left}."


def _suspect_lines(tally: FindingTally) -> list[str]:
    first, *details = _new_lines(tally)
    return [first.replace("new    ", "suspect  ", 1), *_indented([tally.reason]), *details]


def _unreproduced_lines(tally: FindingTally) -> list[str]:
    tried = tally.finding.tried if tally.finding is not None else 0
    shown = f"shown by none of {plural(tried, 'fresh run')}"
    where = _where(tally, tally.finding) if tally.finding is not None else ()
    details = [first_line(tally.violation.message), shown, *where]
    return [f"seen, not reproduced  {_what(tally)}, {plural(tally.count, 'time')}", *_indented(details)]


def _canary(done: Summary) -> Text:
    """Return the result of the canary; it is highlighted when the canary was not found."""
    if done.blind:
        lines = [f"BLIND on {name}: the canary was not found: {tally.why_blind}." for name, tally in done.blind.items()]
        return Text("\n".join([*lines, "Where it is blind, that nothing was found says nothing."]), style="bold red")
    found = [tally for tally in done.canary.values() if tally.verdict == "found"]
    if not found:
        played = sum(tally.scripts for tally in done.canary.values())
        return Text(f"canary: undecided: not found yet, in {plural(played, 'script')}.")
    first = found[0]
    where = f"seen on {len(found)} of {plural(len(done.configs), 'configuration')}"
    return Text(f"canary: found after {plural(first.scripts, 'script')} by {first.found_by}; {where}.")


def _configurations(done: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("configuration", no_wrap=True)
    for column in ("scripts", "steps", "forwards", "ms/script", "violations"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, tally in done.configs.items():
        per_script = f"{1000 * tally.wall_s / tally.scripts:.1f}" if tally.scripts else "-"
        counts = (f"{tally.scripts:,}", f"{tally.steps:,}", f"{tally.forwards:,}", per_script, f"{tally.violations:,}")
        table.add_row(escape(name), *counts)
    return table


def _new_lines(tally: FindingTally) -> list[str]:
    details = [first_line(tally.violation.message)]
    if tally.finding is not None:
        finding = tally.finding
        actions = f"{plural(len(finding.script.actions), 'action')} of {finding.original_actions}"
        reliability = finding.reliability if finding.tried else "not run again"
        how = f"{reliability}; {actions}, minimised in {plural(finding.reruns, 'run')}"
        details = [first_line(finding.violation.message), how, text(finding.script), *_where(tally, finding)]
        details += [f"cause: {tally.reason}"] if tally.reason else []
        details += history(tally)
    return [f"new    {_what(tally)}, seen {plural(tally.count, 'time')}", *_indented(details)]


def _where(tally: FindingTally, finding: Finding) -> tuple[str, ...]:
    """Return the file of a finding; where the disk took none, the script itself, so that it is not lost."""
    if tally.path is not None:
        return (str(tally.path),)
    return ("not written; its script, for `sr-fuzz replay`:", to_json(finding.script).decode())


def _known_lines(faces: Sequence[FindingTally]) -> list[str]:
    """Return lines on one known bug, with all its findings."""
    rules = ", ".join(dict.fromkeys(_what(tally) for tally in faces))
    paths = ", ".join(dict.fromkeys(str(tally.path) for tally in faces if tally.path is not None))
    times = plural(sum(tally.count for tally in faces), "time")
    asked, verified, fitted = (sum(getattr(each, name) for each in faces) for name in ("asked", "verified", "fitted"))
    cause = f"; cause verified {verified} of {asked}" if asked else ""
    cause += f", {fitted} with the face of a bug without a fix" if fitted else ""
    return [f"known  {rules}, seen {times}{cause}", *_indented([*_causes(faces), paths])]


def _causes(faces: Sequence[FindingTally]) -> list[str]:
    """Return the known bugs that explain the hits, each with their number where there are several."""
    causes: Counter[str] = Counter()
    for tally in faces:
        causes.update(tally.causes)
    if len(causes) < 2:
        return [next(iter(causes), faces[0].reason)]
    return [f"{count} by: {reason}" for reason, count in causes.most_common()]


def _what(tally: FindingTally) -> str:
    return f"{tally.violation.invariant}: {tally.violation.rule}"


def _indented(details: Sequence[str]) -> list[str]:
    return [f"       {detail}" for detail in details if detail]


def _some(kinds: Sequence[str]) -> str:
    shown = ", ".join(kinds[:_SHOWN_KINDS])
    rest = len(kinds) - _SHOWN_KINDS
    return f"{shown} and {rest} more (see `sr-fuzz statistics`)" if rest > 0 else shown
