"""The result of a campaign as JUnit XML, for programs that show test results.

Each configuration is a test case that passes, unless the campaign was blind on it (an error). Each finding is a test
case too: a new one or a suspect is a failure; one that is known or was not reproduced is skipped. Trouble is an error.
With several SGLangs each has a suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from sr_fuzz.campaign.events import Event, FindingTally, Finished, Started, Summary
from sr_fuzz.outcome.plain_text import printable, storable
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.report.findings import details, title


class JUnitReport:
    """A listener that writes the file when a campaign ends; those that it sees after each other are in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._report = JUnitXml("sr-fuzz")
        self._name = "sr-fuzz"
        self.problem = ""
        """Why the file was not written."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._name = f"sr-fuzz on SGLang {event.sglang_tree or event.sglang_version}"
        elif isinstance(event, Finished):
            self._report.add_testsuite(_suite(self._name, event.summary))
            try:
                write_whole(self._path, self._report.tostring() + b"\n")
            except OSError as error:
                self.problem = f"{self._path}: {error.strerror}"


def _suite(name: str, done: Summary) -> TestSuite:
    suite = TestSuite(_text(name))
    for case in (*_configurations(done), *_findings(done), *_troubles(done)):
        suite.add_testcase(case)
    suite.time = round(done.elapsed_s, 3)
    return suite


def _configurations(done: Summary) -> Iterator[TestCase]:
    for name, tally in done.configs.items():
        case = TestCase(_text(name), "sr-fuzz.configurations", round(tally.wall_s, 3))
        if (canary := done.blind.get(name)) is not None:
            case.result = [Error(_text(f"blind: {canary.why_blind}"), "blind")]
        yield case


def _findings(done: Summary) -> Iterator[TestCase]:
    for key, tally in done.findings.items():
        case = TestCase(_text(key), "sr-fuzz.findings")
        case.result = [_result(tally)]
        yield case


def _result(tally: FindingTally) -> Failure | Skipped:
    if tally.status in ("new", "suspect"):
        failure = Failure(_text(title(tally)), tally.status)
        failure.text = _text("\n".join(details(tally)))
        return failure
    why = "seen, and not reproduced" if tally.status == "unreproduced" else f"known: {tally.reason}"
    return Skipped(_text(why), tally.status)


def _troubles(done: Summary) -> Iterator[TestCase]:
    ends = [("the campaign ended before its time", done.gave_up)] if done.gave_up else []
    for name, what in [*((f"trouble while {each.doing}", each.what) for each in done.troubles), *ends]:
        case = TestCase(_text(name), "sr-fuzz.trouble")
        case.result = [Error(_text(what), "trouble")]
        yield case


def _text(text: str) -> str:
    """What XML cannot hold (control characters, lone surrogates) is written as escapes."""
    return printable(storable(text))
