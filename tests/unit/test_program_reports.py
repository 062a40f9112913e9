"""What a campaign writes for other programs: JUnit XML, GitHub's annotations and job summary."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import CORE, error_of, leak_on_abort
from fake_engine import FakeEngine, leak
from msgspec.structs import replace

from sr_fuzz import cli
from sr_fuzz.campaign.bisection import Row, Verdict, from_rows
from sr_fuzz.campaign.events import (
    CanaryTally,
    ConfigTally,
    FindingTally,
    Finished,
    NotStarted,
    Started,
    Summary,
    Trouble,
)
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.report.github import GitHubReport
from sr_fuzz.report.junit import JUnitReport
from sr_fuzz.report.summary import summary as terminal_summary
from sr_fuzz.report.terminal import make_console
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import EngineError

HOSTILE = "a\x1b[31m%0A::error::b]]><x>&\ud800```\r\nc\x00"
FINDING = Finding(
    signature(leak(), EngineConfig()), Script(EngineConfig(), CORE), leak(), "0.5.23", reproduced=4, tried=5
)
ROWS = [Row("0.5.22", Verdict("does not show", "")), Row("0.5.23", Verdict("shows", ""))]


def tally(**fields) -> FindingTally:
    new = FindingTally("new", leak(), count=3, finding=FINDING, path=Path("/repo/findings/a/test_a.py"))
    return replace(new, **fields)


def summary(**fields) -> Summary:
    return Summary(**{"configs": {"default": ConfigTally(3, 9, wall_s=1.5)}, "scripts": 3, "steps": 9} | fields)


def started(version: str = "0.5.23") -> Started:
    return Started(version, 1, 60.0, None, Path("/out"), 0)


def junit(path: Path, *summaries: Summary) -> ElementTree.Element:
    report = JUnitReport(path)
    for number, done in enumerate(summaries):
        report(started(f"0.5.{number}"))
        report(Finished(done, Path("/out")))
    assert not report.problem
    return ElementTree.parse(path).getroot()


def test_junit_has_a_failure_for_what_is_new_and_none_for_what_is_known(tmp_path: Path):
    findings = {
        "new": tally(releases=from_rows("x", ROWS)), "suspect": tally(status="suspect"),
        "known": tally(status="known", reason="that bug"), "unreproduced": tally(status="unreproduced"),
    }  # fmt: skip
    root = junit(tmp_path / "x.xml", summary(findings=findings))
    cases = {case.attrib["name"]: case for case in root.iter("testcase")}
    assert list(cases) == ["default", *findings]
    (failure,) = cases["new"]
    assert failure.tag == "failure" and "kv_pages: leaked" in failure.attrib["message"]
    assert failure.text is not None and "4 of 5 fresh runs" in failure.text and "start_req" in failure.text
    assert "introduced in 0.5.23; the last without it: 0.5.22" in failure.text
    assert [cases[name][0].tag for name in ("suspect", "known", "unreproduced")] == ["failure", "skipped", "skipped"]
    assert cases["known"][0].attrib["message"] == "known: that bug" and not len(cases["default"])
    (suite,) = root.iter("testsuite")
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("5", "2", "2")


def test_junit_has_an_error_for_a_blind_configuration_and_for_trouble(tmp_path: Path):
    blind = {"default": CanaryTally(scripts=60)}
    trouble = [Trouble("it broke", "playing", 2)]
    root = junit(tmp_path / "x.xml", summary(canary=blind, troubles=trouble, gave_up="three in a row"))
    errors = [error.attrib["message"] for error in root.iter("error")]
    assert errors == ["blind: it never struck in 60 scripts", "it broke", "three in a row"]


def test_several_sglangs_are_suites_of_one_file(tmp_path: Path):
    assert len(list(junit(tmp_path / "x.xml", summary(), summary()).iter("testsuite"))) == 2


def test_two_sglangs_of_one_version_and_one_that_does_not_start_have_suites_of_their_own(tmp_path: Path):
    report = JUnitReport(tmp_path / "x.xml")
    for _ in range(2):
        report(started())
        report(Finished(summary(), Path("/out")))
    report(Finished(summary(interrupted=True), Path("/out")))  # stopped while the third one was booting
    report(NotStarted("SGLang 0.5.99", "there is none"))
    root = ElementTree.parse(tmp_path / "x.xml").getroot()
    suites = {suite.attrib["name"]: suite for suite in root.iter("testsuite")}
    assert list(suites) == [
        "sr-fuzz on SGLang 0.5.23", "sr-fuzz on SGLang 0.5.23 (2)", "sr-fuzz", "sr-fuzz on SGLang 0.5.99",
    ]  # fmt: skip
    assert [error.attrib["message"] for error in suites["sr-fuzz on SGLang 0.5.99"].iter("error")] == ["there is none"]
    assert [case.attrib["message"] for case in suites["sr-fuzz"].iter("skipped")] == ["stopped by a signal"]


def test_a_campaign_that_played_nothing_is_an_error(tmp_path: Path):
    root = junit(tmp_path / "x.xml", Summary())
    assert [error.attrib["message"] for error in root.iter("error")] == ["no script was played"]


def test_hostile_text_makes_no_other_xml(tmp_path: Path):
    violation = replace(leak(), message=HOSTILE)
    hostile = tally(violation=violation, finding=None, reason=HOSTILE, path=Path(f"/x/{HOSTILE}"))
    root = junit(tmp_path / "x.xml", summary(findings={HOSTILE: hostile}, gave_up=HOSTILE))
    assert len(list(root.iter("testcase"))) == 3 and not list(root.iter("x"))


def test_a_file_that_cannot_be_written_ends_no_campaign(tmp_path: Path):
    report = JUnitReport(tmp_path / "nowhere" / "x.xml")
    report(Finished(summary(), Path("/out")))
    assert "No such file" in report.problem


def github(done: Summary, **environment: str) -> str:
    output = io.StringIO()
    report = GitHubReport(output, environment)
    report(started())
    report(Finished(done, Path("/out")))
    assert not report.problem
    return output.getvalue()


def test_each_finding_that_is_new_is_an_annotation_of_its_test():
    findings = {"a": tally(), "b": tally(status="suspect"), "c": tally(status="known")}
    error, warning = github(summary(findings=findings), GITHUB_WORKSPACE="/repo").splitlines()
    assert error.startswith("::error file=findings/a/test_a.py,line=1,title=sr-fuzz%3A new::kv_pages: leaked: ")
    assert "(on SGLang 0.5.23)%0Aseen 3 times%0A4 of 5 fresh runs" in error
    assert warning.startswith("::warning file=")
    assert "file=" not in github(summary(findings={"a": tally()}))


def test_blindness_and_trouble_are_annotations():
    done = summary(canary={"default": CanaryTally(scripts=60)}, troubles=[Trouble("it broke", "playing")], gave_up="x")
    levels = [line.split(" ")[0] for line in github(done).splitlines()]
    assert levels == ["::error", "::warning", "::error"]


def test_hostile_text_gives_no_command_to_github(tmp_path: Path):
    hostile = tally(violation=replace(leak(), message=HOSTILE), finding=None, reason=HOSTILE, path=None)
    file = tmp_path / "summary.md"
    shown = github(summary(findings={"a": hostile}), GITHUB_STEP_SUMMARY=str(file))
    assert len(shown.splitlines()) == 1 and "\x1b" not in shown and "%250A" in shown
    text = file.read_text()
    assert "````" in text and "\x1b" not in text


def test_the_summary_of_a_job_is_appended_as_markdown(tmp_path: Path):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    done = summary(findings={"a": tally(), "b": tally(status="known", reason="why")}, elapsed_s=61)
    github(done, GITHUB_STEP_SUMMARY=str(file))
    lines = file.read_text().splitlines()
    assert lines[:3] == ["before", "### sr-fuzz on `SGLang 0.5.23`", ""]
    assert "3 scripts and 9 steps in 1 min 01 s; findings: 1 new, 0 suspect, 0 not reproduced, 1 known." in lines
    assert any(line.startswith("**new** `kv_pages: leaked: ") for line in lines) and "(`why`)" in lines[-1]


def test_a_summary_that_is_too_long_is_cut(tmp_path: Path):
    file = tmp_path / "summary.md"
    findings = {str(number): tally(reason="x" * 50_000) for number in range(30)}
    github(summary(findings=findings), GITHUB_STEP_SUMMARY=str(file))
    github(summary(findings=findings), GITHUB_STEP_SUMMARY=str(file))
    assert 800_000 < file.stat().st_size < 1_000_000
    assert file.read_text().endswith("Cut here: GitHub shows no longer summary.\n")


def test_one_that_does_not_start_is_an_annotation(tmp_path: Path):
    output = io.StringIO()
    GitHubReport(output, {})(NotStarted("SGLang 0.5.99", "there is none"))
    assert output.getvalue() == "::error title=sr-fuzz%3A not started::on SGLang 0.5.99: there is none\n"


# -- the options -----------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> int:
    monkeypatch.setattr("sr_fuzz.engine.options.make_engine", lambda *args, **kwargs: FakeEngine(leak_on_abort))
    given = ["--seed", "1", "--config", "overlap-chunk16", "--max-scripts", "30", "--no-canary", "--time", "10m"]
    return cli.main(["run", *given, "--out", str(out), *options])


def test_run_writes_junit_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert run(monkeypatch, tmp_path / "out", "--junit", str(tmp_path / "x.xml")) == 0
    assert list(ElementTree.parse(tmp_path / "x.xml").getroot().iter("failure"))


@pytest.mark.parametrize(("in_actions", "option", "told"), [
    ("true", None, True), ("", None, False), ("true", "--no-github", False), ("", "--github", True),
])  # fmt: skip
def test_github_is_told_where_it_runs_the_campaign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], in_actions: str,
    option: str | None, told: bool,
):  # fmt: skip
    monkeypatch.setenv("GITHUB_ACTIONS", in_actions)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert run(monkeypatch, tmp_path, *([option] if option else [])) == 0
    assert ("::error " in capsys.readouterr().out) is told


@pytest.mark.parametrize("command", ["run", "nightly"])
def test_a_file_of_junit_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    assert "--junit:" in error_of([command, "--junit", str(tmp_path)], capsys)


@pytest.mark.parametrize("command", ["run", "nightly"])
def test_the_report_of_an_earlier_run_does_not_stand_for_one_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    def search_path(sglang: str | None) -> list[str]:
        if sglang is not None:
            raise EngineError("there is no such release")
        return []

    monkeypatch.setattr("sr_fuzz.cli.engines.search_path", search_path)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.xml"
    file.write_text("all passed")
    assert "there is no such release" in error_of([command, "--sglang", "0.5.99", "--junit", str(file)], capsys)
    assert [error.attrib["message"] for error in ElementTree.parse(file).getroot().iter("error")] == [
        "there is no such release"
    ]


def test_a_violation_that_nobody_followed_up_is_no_green(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A campaign may end before it comes to what it has seen; it must not say that there was nothing."""
    done = summary(waiting={"kv_pages:leaked": 2}, uncounted=3)
    root = junit(tmp_path / "x.xml", done)
    cases = {case.attrib["name"]: case for case in root.iter("testcase")}
    (error,) = cases["kv_pages:leaked"]
    assert error.tag == "error" and "seen 2 times, and not followed up" in error.attrib["message"]
    output, job = io.StringIO(), tmp_path / "job.md"
    report = GitHubReport(output, {"GITHUB_STEP_SUMMARY": str(job)})
    report(started())
    report(Finished(done, Path("/out")))
    assert output.getvalue().startswith("::warning title=sr-fuzz%3A not followed up::kv_pages:leaked: seen 2 times")
    assert "Not followed up yet:\n\n* `kv_pages:leaked`: seen 2 times" in job.read_text()
    make_console().print(terminal_summary(done), soft_wrap=True)
    told = capsys.readouterr().out
    assert "not followed up: kv_pages:leaked, seen 2 times" in told and "No violation found" not in told
    assert "not counted: 3 violations of signatures that are known" in told
