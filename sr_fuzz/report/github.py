"""What a campaign tells GitHub in a job of its Actions: annotations of the findings, and a summary of the job.

An annotation is a line on standard output, ``::error file=…,title=…::message``; of one step GitHub shows the first ten
errors. The summary is Markdown in the file that the environment variable ``GITHUB_STEP_SUMMARY`` names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from sr_fuzz.campaign.events import Event, FindingTally, Finished, NotStarted, Started, Summary
from sr_fuzz.outcome.plain_text import printable, storable
from sr_fuzz.report.findings import details, title
from sr_fuzz.report.words import duration, plural

_LEVELS = {"new": "error", "suspect": "warning", "unreproduced": "notice"}
"""By the status of a finding; a known one is told in the summary alone."""

_MOST_BYTES = 900_000
"""GitHub drops a summary that is larger than 1 MiB; what is in the file already counts."""


class GitHubReport:
    """A listener that writes both when a campaign ends."""

    def __init__(self, output: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        self._output = output
        self._environment = environment
        self._name = "SGLang"
        self.problem = ""
        """Why the summary was not written."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._name = f"SGLang {event.sglang_tree or event.sglang_version}"
        elif isinstance(event, NotStarted):
            annotation = _annotation("error", "sr-fuzz: not started", f"on {event.sglang}: {event.why}")
            self._tell([annotation], [f"### sr-fuzz on {_inline(event.sglang)}\n\nNot started: {_inline(event.why)}\n"])
        elif isinstance(event, Finished):
            self._tell(self._annotations(event.summary), _markdown(self._name, event.summary))
            self._name = "SGLang"

    def _tell(self, annotations: Iterable[str], markdown: Iterable[str]) -> None:
        try:
            for line in annotations:
                print(line, file=self._output, flush=True)
            if path := self._environment.get("GITHUB_STEP_SUMMARY"):
                _append(Path(path), markdown)
        except OSError as error:
            self.problem = f"{error.filename or 'standard output'}: {error.strerror}"

    def _annotations(self, done: Summary) -> Iterator[str]:
        for tally in done.findings.values():
            if (level := _LEVELS.get(tally.status)) is not None:
                yield _annotation(level, f"sr-fuzz: {tally.status}", self._message(tally), self._file(tally.path))
        for found, count in done.waiting.items():
            yield _annotation("warning", "sr-fuzz: not followed up", f"{found}: seen {plural(count, 'time')}")
        for name, canary in done.blind.items():
            yield _annotation("error", "sr-fuzz: blind", f"on {name}: {canary.why_blind}")
        for trouble in done.troubles:
            yield _annotation("warning", f"sr-fuzz: trouble while {trouble.doing}", trouble.what)
        if done.gave_up:
            yield _annotation("error", "sr-fuzz: ended before its time", done.gave_up)

    def _message(self, tally: FindingTally) -> str:
        return "\n".join([f"{title(tally)} (on {self._name})", *details(tally)])

    def _file(self, path: Path | None) -> str:
        """The path from the root of the checkout, where it is in there."""
        root = self._environment.get("GITHUB_WORKSPACE")
        if path is None or not root or not path.absolute().is_relative_to(root):
            return ""
        return str(path.absolute().relative_to(root))


def _append(path: Path, blocks: Iterable[str]) -> None:
    """Append blocks of Markdown, as many as fit."""
    with path.open("ab") as file:
        left = _MOST_BYTES - file.tell()
        for block in blocks:
            data = storable(f"{block}\n").encode()
            left -= len(data)
            if left < 0:
                file.write(b"\nCut here: GitHub shows no longer summary.\n")
                return
            file.write(data)


def _annotation(level: str, name: str, message: str, file: str = "") -> str:
    where = f"file={_escaped(file, ':,')},line=1," if file else ""
    return f"::{level} {where}title={_escaped(name, ':,')}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """Escape what GitHub reads as the end of a property or message."""
    text = printable(storable(text))
    return "".join(f"%{ord(char):02X}" if char in f"%\r\n{more}" else char for char in text)


def _markdown(name: str, done: Summary) -> Iterator[str]:
    """Return blocks, each of which can be the last one."""
    yield f"### sr-fuzz on {_inline(name)}\n"
    yield f"{done.scripts:,} scripts and {done.steps:,} steps in {duration(done.elapsed_s)}; {_counts(done)}."
    for config, canary in done.blind.items():
        yield f"\n**Blind** on {_inline(config)}: the canary was not found: {_inline(canary.why_blind)}"
    if done.gave_up:
        yield f"\n**Ended before its time**: {_inline(done.gave_up)}"
    for tally in [*done.new, *done.suspects]:
        yield "\n".join(["", f"**{tally.status}** {_inline(title(tally))}", "", *_fenced(details(tally))])
    for heading, several in (("Seen, and not reproduced", done.unreproduced), ("Known", done.known)):
        if several:
            yield from ("", f"{heading}:", "", *(f"* {_inline(title(tally))}{_why(tally)}" for tally in several))
    if done.waiting:
        found = (f"* {_inline(found)}: seen {plural(count, 'time')}" for found, count in done.waiting.items())
        yield from ("", "Not followed up yet:", "", *found)
    if done.troubles:
        troubles = (f"* {each.count} times while {each.doing}: {_inline(each.what)}" for each in done.troubles)
        yield from ("", "Trouble:", "", *troubles)


def _counts(done: Summary) -> str:
    numbers = {
        "new": len(done.new), "suspect": len(done.suspects), "not reproduced": len(done.unreproduced),
        "known": len(done.known),
    }  # fmt: skip
    return "findings: " + ", ".join(f"{number} {status}" for status, number in numbers.items())


def _why(tally: FindingTally) -> str:
    return f" ({_inline(tally.reason)})" if tally.reason else ""


def _inline(text: str) -> str:
    """Code, so that nothing in it is read as Markdown or HTML; the fence is longer than any in the text."""
    shown = printable(storable(text)).replace("\n", " ")
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _fenced(lines: list[str]) -> list[str]:
    shown = [printable(storable(line)) for line in lines]
    fence = "`" * max(3, _longest_run("\n".join(shown)) + 1)
    return [fence, *shown, fence]


def _longest_run(text: str) -> int:
    longest = run = 0
    for char in text:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    return longest
