"""Output of an example: a known bug as it would have been found."""

from __future__ import annotations

import os
import shlex

from rich.console import Console
from rich.text import Text

from sr_fuzz.campaign.example import Example
from sr_fuzz.emit.commands import program
from sr_fuzz.report.words import first_line, plural
from sr_fuzz.script.text import text

_MORE_BUGS = "0.5.20"
"""The supported release with the most bugs on the list."""


def print_example(console: Console, example: Example, sglang: str | None) -> None:
    """Print what the bug breaks, its script, its cause, and the commands that show more.

    ``sglang``: the value of ``--sglang`` that the campaign was given.
    """
    source = f" --sglang {shlex.quote(sglang)}" if sglang is not None else ""
    version, sr_fuzz = example.outcome.sglang_version, program("sr-fuzz")
    met = f"met {example.met} of {plural(example.open_bugs, 'known bug')} of SGLang {version}"
    lines = [
        "",
        f"This campaign {met}, {example.verified} with the cause verified.",
        "What a finding looks like (a known bug of this SGLang, played now):",
        *_what_it_showed(example),
        f"  script: {text(example.bug.script)}",
        f"  cause: {example.bug.reason}",
        "  again, step by step:",
        f"    {sr_fuzz} replay --trace{source} {shlex.quote(os.path.relpath(example.path))}",
        "To see every known bug found, minimised and written out as if it were new:",
        f"    {sr_fuzz} run --all-new{source}",
        "On a release with more of them:",
        f"    {sr_fuzz} run --all-new --sglang {_MORE_BUGS} --out findings-{_MORE_BUGS}",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _what_it_showed(example: Example) -> list[str]:
    violation = example.outcome.violation
    if violation is None:
        return [f"  it does not show: {first_line(example.outcome.report())}. This SGLang may have it mended."]
    what = f"  {violation.invariant}: {violation.rule}, at step {violation.step}: {first_line(violation.message)}"
    if not example.shows:
        return ["  it does not show; this is another violation, perhaps a bug that nobody knows:", what]
    return [what]
