"""What an emitted test says of itself: how to read it, how to run it, where to look, which known bug it may be.

Each function returns lines. A `Command` is to be copied, and so never wrapped nor cut.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec.structs import replace

from sr_fuzz.bugs.catalogue import KnownBug, shipped
from sr_fuzz.emit.commands import needs_server, pytest_command, sr_fuzz_command
from sr_fuzz.emit.public_api import NotExpressible, to_public_api
from sr_fuzz.emit.sglang_checks import checks_for
from sr_fuzz.outcome import Finding, StepRecord
from sr_fuzz.outcome.files import finding_file
from sr_fuzz.script import Script
from sr_fuzz.script.text import action_text, text
from sr_fuzz.sglang_api import places
from sr_fuzz.sglang_api.places import Place, located, package_of

MOST_RELATIVES = 3
"""Known bugs that a finding is compared with; more of them say nothing."""


class Command(str):
    """A line that is a command."""


# -- how to read it --------------------------------------------------------------------------------------------

_LEGEND = (
    (r"start_req\(\d", "`r0 = start_req(1:40+3, new=8)` starts request r0: a prompt of family 1 (prompts of a family "
     "begin alike) of 40 tokens, the last 3 of them its own (`+3`), and at most 8 new tokens"),
    (r"start_req\([a-z]\w*:", "`start_req(r0:60+3, …)` is the next turn of a chat: it goes on from what r0 read and "
     "generated"),
    (r"step_until\(", "`step_until(r0, stage)` makes scheduler steps until r0 is at that stage"),
    (r"(?<!_)step\(", "`step(3)` makes three scheduler steps"),
    (r"exhaust_", "`exhaust_…` takes pages, rows or locks, as other requests would"),
)  # fmt: skip


def script_legend(script: Script) -> list[str]:
    """Return what the one-line form of this script means."""
    shown = text(script)
    head = "`[…]` names what differs from the default engine" if not shown.startswith("[default]") else ""
    terms = [meaning for pattern, meaning in _LEGEND if re.search(pattern, shown)]
    return [f"{'; '.join(filter(None, [head, *terms]))}."] if head or terms else []


TRACE_LEGEND = (
    "A line is a step: its number, the kind of batch with its requests, free pages (p) and rows (r), who waits, whose "
    "prompt is in chunks, and what was sent (`r0 +2`: two tokens). `|`: what the script did before that step; "
    "`epilogue`: what ends each script."
)


# -- how to run it ---------------------------------------------------------------------------------------------


def how_to_run(finding: Finding, test: Path) -> list[str]:
    """Return the commands for an emitted test, and for the same as a test of SGLang's own suite."""
    data = finding_file(test)
    lines = ["To run it (it fails while the bug is there), and to see each step:"]
    lines += [Command(f"    {pytest_command(finding, test)}")]
    lines += [Command(f"    {sr_fuzz_command(finding, 'replay', data, '--trace', *_engine(finding))}")]
    if (why_not := not_for_sglang(finding)) is not None:
        return [*lines, f"It cannot be a test of SGLang's own suite: {why_not}"]
    lines += ["The same as a test for SGLang's own suite, where sr_fuzz is not needed:"]
    return [*lines, Command(f"    {sr_fuzz_command(finding, 'emit', data, '--format', 'sglang')}")]


def not_for_sglang(finding: Finding) -> str | None:
    """Return why SGLang's own scripted runtime cannot show the finding; None where it may."""
    try:
        to_public_api(finding.script)
        checks_for(finding.violation, finding.script.config)
    except NotExpressible as error:
        return str(error)
    return None


def _engine(finding: Finding) -> tuple[str, ...]:
    return ("--engine", "server") if needs_server(finding) else ()


# -- where to look ---------------------------------------------------------------------------------------------


def where_to_look(finding: Finding, trace: Sequence[StepRecord]) -> list[str]:
    """Return the lines of SGLang that raised; where nothing did, the functions that last touched what broke."""
    if finding.violation.location:
        return ["Cause candidates in SGLang, innermost first:", *(f"    {line}" for line in raised_at(finding))]
    package = package_of(finding.sglang_version, finding.sglang_tree)
    lines = []
    for what, of in _touched(finding, trace):
        known = [found for place in of if (found := located(place, package))]
        shown = textwrap.shorten(what, _WHAT, placeholder=" …")
        lines += [f"    {'' if index else shown:<{_WHAT}}  {found}" for index, found in enumerate(known)]
    head = "Cause candidates in SGLang: what the trace shows last, and what handles it there:"
    return [head, *lines] if lines else []


_WHAT = 26
"""Columns for what happened; longer text is cut between words. The longest place has 88, and a line of a file 120."""


def raised_at(finding: Finding) -> list[str]:
    """Return the innermost places in SGLang, each with its line number where the stack has it."""
    numbers: dict[tuple[str, str], str] = {}
    for file, number, name in re.findall(r'File "([^"]+)", line (\d+),? in (\S+)', finding.violation.stack):
        numbers[file.partition("sglang/")[2].removeprefix("srt/"), name] = number
    return [_numbered(place, numbers) for place in finding.violation.location]


def _numbered(place: str, numbers: dict[tuple[str, str], str]) -> str:
    where, separator, source = place.partition(": ")
    file, _, name = where.rpartition(":")
    number = numbers.get((file, name))
    return f"{file}:{number} {name}{separator}{source}" if number is not None else place


def _touched(finding: Finding, trace: Sequence[StepRecord]) -> Iterator[tuple[str, tuple[Place, ...]]]:
    """Give what happened last to the requests that the violation names, newest first; to any where it names none."""
    names = [n for n in finding.script.names if re.search(rf"\b{n}\b", finding.violation.message)]
    seen: set[tuple[Place, ...]] = set()
    kept = places.BY_INVARIANT.get(finding.violation.invariant, ())
    events = list(_events(names, trace)) or _actions(finding.script)
    for what, of in [("what broke", kept), *events]:
        if of and of not in seen:
            seen.add(of)
            yield what, of


def _actions(script: Script) -> list[tuple[str, tuple[Place, ...]]]:
    """Return the actions of the script, the last one first: a trace that was cut at its head no longer has them."""
    tags = [(action, str(action.__struct_config__.tag)) for action in reversed(script.actions)]
    return [(action_text(action), places.BY_ACTION.get(tag, ())) for action, tag in tags]


def _events(names: Sequence[str], trace: Sequence[StepRecord]) -> Iterator[tuple[str, tuple[Place, ...]]]:
    for index in reversed(range(len(trace))):
        record, before = trace[index], trace[index - 1] if index else StepRecord(0)
        concerned = names or list(dict.fromkeys([*record.batch, *record.waiting, *(s.split()[0] for s in record.sent)]))
        step = f"step {record.step}"
        for answer in record.sent:
            if answer.split()[0] in concerned and ("finish" in answer or "abort" in answer):
                yield f"{step}: sent {answer}", places.ANSWERED
        if back := [n for n in concerned if n in record.waiting and n in (*before.running, *before.batch)]:
            yield f"{step}: {back[0]} queued again", places.RETRACTED
        if record.mode is not None and any(name in record.batch for name in concerned):
            yield f"{step}: {record.mode} of {' '.join(record.batch)}", places.BY_MODE.get(record.mode, ())
        for action in reversed(record.actions):
            tag = action.partition(" = ")[2].partition("(")[0] or action.partition("(")[0]
            if not names or tag not in ("start_req", "abort") or any(re.search(rf"\b{n}\b", action) for n in names):
                yield f"at {step}: {action.partition('(')[0]}", places.BY_ACTION.get(tag, ())


# -- which known bug it may be ---------------------------------------------------------------------------------


def relatives(finding: Finding, test: Path) -> list[str]:
    """Return the known bugs of that release which break the same rule, or at the same place, and how to tell."""
    lines: list[str] = []
    for path, bug in like(finding):
        page = f", docs/findings/{bug.page}" if bug.page else ""
        lines += [f"    {path.stem}{page}: {bug.reason}"]
        if bug.fixes:
            fixed = replace(finding, faults=(*finding.faults, *bug.fixes))
            command = sr_fuzz_command(fixed, "replay", finding_file(test), *_engine(finding))
            lines += ["    It is, if this breaks nothing:", Command(f"        {command}")]
    return ["May be the same bug as", *lines] if lines else []


def like(finding: Finding) -> list[tuple[Path, KnownBug]]:
    """Return the known bugs that a finding may be, the most similar one first."""
    graded = []
    for path, bug in shipped().items():
        if bug.is_open_in(finding.sglang_version) and (grade := _similarity(finding, bug)):
            graded.append((-grade, path.name, path, bug))
    return [(path, bug) for _, _, path, bug in sorted(graded)[:MOST_RELATIVES]]


def _similarity(finding: Finding, bug: KnownBug) -> float:
    """Return 0 for nothing in common; more for each engine trait in common, the most for a signature of the bug."""
    if any(fnmatchcase(finding.signature, pattern) for pattern in bug.signatures):
        return 3.0
    return max((_likeness(finding, signature) for signature in bug.signatures), default=0.0)


def _likeness(finding: Finding, signature: str) -> float:
    own, other = finding.signature.split(":"), signature.split(":")
    if own[:2] != other[:2]:
        return 0.0
    # A crash anywhere in SGLang has the rule of its exception; only the same place makes two of them alike.
    same_place = len(own) > 3 and own[3:] == other[3:]
    if finding.violation.location and not same_place:
        return 0.0
    traits, others = (set("".join(parts[2:3]).split("+")) for parts in (own, other))
    return 1.0 + same_place + len(traits & others) / len(traits | others)
