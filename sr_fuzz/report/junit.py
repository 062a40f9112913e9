"""The result of a campaign as JUnit XML, for programs that show test results.

Each configuration is a test case that passes, unless the campaign was blind on it (an error). Each finding is a test
case too: a new one or a suspect is a failure; one that is known or was not reproduced is skipped. Trouble is an error.
With several SGLangs each has a suite.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from sr_fuzz.campaign.events import Event, FindingTally, Finished, NotStarted, Started, Summary
from sr_fuzz.outcome.plain_text import printable, storable
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.report.findings import details, title
from sr_fuzz.report.words import plural


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
        elif isinstance(event, NotStarted):
            suite = TestSuite(self._unused(f"sr-fuzz on {event.sglang}"))
            suite.add_testcase(_error("it did not start", event.why))
            self._add(suite)
        elif isinstance(event, Finished):
            self._add(_suite(self._unused(self._name), event.summary))
            self._name = "sr-fuzz"

    def _unused(self, name: str) -> str:
        """Two suites of one name would be made one."""
        there = {suite.name for suite in self._report}
        names = (_text(name if number == 1 else f"{name} ({number})") for number in itertools.count(1))
        return next(name for name in names if name not in there)

    def _add(self, suite: TestSuite) -> None:
        self._report.add_testsuite(suite)
        try:
            write_whole(self._path, self._report.tostring() + b"\n")
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"


def _suite(name: str, done: Summary) -> TestSuite:
    suite = TestSuite(name)
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
    for found, count in done.waiting.items():
        case = TestCase(_text(found), "sr-fuzz.findings")
        case.result = [Error(_text(f"seen {plural(count, 'time')}, and not followed up yet"), "waiting")]
        yield case


def _result(tally: FindingTally) -> Failure | Skipped:
    if tally.status in ("new", "suspect"):
        failure = Failure(_text(title(tally)), tally.status)
        failure.text = _text("\n".join(details(tally)))
        return failure
    why = "seen, and not reproduced" if tally.status == "unreproduced" else f"known: {tally.reason}"
    return Skipped(_text(why), tally.status)


def _troubles(done: Summary) -> Iterator[TestCase]:
    for each in done.troubles:
        yield _error(f"trouble while {each.doing}", each.what)
    if done.gave_up:
        yield _error("the campaign ended before its time", done.gave_up)
    elif done.interrupted:
        case = TestCase("the campaign was stopped before its time", "sr-fuzz.trouble")
        case.result = [Skipped("stopped by a signal", "interrupted")]
        yield case
    elif not done.scripts:
        yield _error("the campaign played nothing", "no script was played")


def _error(name: str, what: str) -> TestCase:
    case = TestCase(_text(name), "sr-fuzz.trouble")
    case.result = [Error(_text(what), "trouble")]
    return case


def _text(text: str) -> str:
    """What XML cannot hold (control characters, lone surrogates) is written as escapes."""
    return printable(storable(text))
