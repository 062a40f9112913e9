"""Writes a finding as a text for an issue of SGLang: the fields of its form for bug reports, to be pasted.

The reproduction is a test for SGLang's own scripted runtime where there is one, since the readers know that; else the
script and the command of sr_fuzz that plays it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib import metadata

from sr_fuzz.emit.commands import needs_server
from sr_fuzz.emit.explanation import TRACE_LEGEND, raised_at, script_legend, where_to_look
from sr_fuzz.emit.sglang_repro import MODEL, TRACE_STEPS
from sr_fuzz.outcome import Finding, StepRecord
from sr_fuzz.outcome.plain_text import printable
from sr_fuzz.script import to_json
from sr_fuzz.script.text import text

TITLE_LENGTH = 100
"""Longer titles are cut by the lists that show them."""


def issue_text(
    finding: Finding, trace: Sequence[StepRecord] = (), *, cause: str | None = None, test: str | None = None
) -> str:
    """Return the text: title, description, reproduction, environment.

    ``cause``: which lines of SGLang are to blame, if that is known. ``test``: the source of a test for SGLang's own
    scripted runtime that shows the finding.
    """
    parts = [f"Title: {_title(finding)}", *_description(finding, trace, cause), *_reproduction(finding, test)]
    return "\n\n".join([*parts, *_environment(finding)]) + "\n"


def _title(finding: Finding) -> str:
    told = f"[Bug] Scheduler: {' '.join(printable(finding.violation.message).split())}"
    return told if len(told) <= TITLE_LENGTH else f"{told[: TITLE_LENGTH - 1].rstrip()}…"


def _description(finding: Finding, trace: Sequence[StepRecord], cause: str | None) -> list[str]:
    violation = finding.violation
    parts = ["### Describe the bug", printable(violation.message)]
    ran = f"shown by {finding.reliability}" if finding.tried else "not run again since"
    parts += [
        f"The scheduler of SGLang {printable(finding.sglang_version)} breaks the invariant `{violation.invariant}` "
        f"(rule `{violation.rule}`) at step {violation.step} of the script below; {ran}. It was found by random "
        "scripts on the real scheduler, with a model that needs no GPU, and minimised."
    ]
    if cause is not None:
        parts += [f"Cause: {printable(cause)}"]
    if violation.location:
        parts += ["In SGLang, innermost first:", _block("\n".join(raised_at(finding)))]
    elif cause is None and (where := where_to_look(finding, trace)):
        parts += [where[0], _block("\n".join(line[4:] for line in where[1:]))]
    if trace:
        steps = "\n".join(record.line for record in tuple(trace)[-TRACE_STEPS:])
        parts += ["Last steps:", _block(steps), TRACE_LEGEND]
    return parts


def _reproduction(finding: Finding, test: str | None) -> list[str]:
    if test is not None:
        shown = [f"As a test of `sglang.test.scripted_runtime` (with {MODEL}; `python3` runs the file):"]
        shown += [_block(test.rstrip(), "python")]
    else:
        data = to_json(finding.script, indent=2).decode().rstrip()
        shown = ["With sr_fuzz, on any Linux machine, no GPU: save this as `script.json`,", _block(data, "json")]
        engine = " --engine server" if needs_server(finding) else ""
        shown += [f"and run `sr-fuzz replay script.json{engine}`."]
    shown += [f"The script in one line: `{text(finding.script)}`", *script_legend(finding.script)]
    return ["### Reproduction", *shown]


def _environment(finding: Finding) -> list[str]:
    lines = [
        f"SGLang {printable(finding.sglang_version)}" + (" with local changes" if finding.sglang_tree else ""),
        f"Python {platform.python_version()}, torch {_version('torch')}, {platform.system()} {platform.machine()}",
        "no GPU is needed; the output of `python3 -m sglang.check_env` of your machine goes here",
    ]
    return ["### Environment", "\n".join(f"* {line}" for line in lines)]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _block(content: str, language: str = "") -> str:
    """Return a fenced block; its fence is longer than any run of backquotes in it."""
    content = printable(content)
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"
