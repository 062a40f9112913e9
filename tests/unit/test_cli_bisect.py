"""``sr-fuzz bisect`` as a user sees it; the engines are fakes, the repositories are real."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SCRIPT, error_of
from fake_engine import FakeEngine, leak
from msgspec.structs import replace

from sr_fuzz import cli
from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.campaign import bisecting
from sr_fuzz.cli import bisect as command
from sr_fuzz.outcome import Finding, Violation, signature
from sr_fuzz.outcome.files import save_finding
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api import releases
from sr_fuzz.sglang_api.versions import RELEASES
from tests.repositories import Repository

LEAKED = signature(leak(), SCRIPT.config)
SCHEDULER = "python/sglang/srt/managers/scheduler.py"


class Unbootable(FakeEngine):
    @property
    def sglang_version(self) -> str:  # type: ignore[override]
        raise EngineError("cannot import SGLang: SyntaxError: invalid syntax, at scheduler.py:1")


@pytest.fixture
def finding(tmp_path: Path) -> Path:
    path = tmp_path / "finding.json"
    save_finding(Finding(LEAKED, SCRIPT, leak(), "0.0.fake", reproduced=5, tried=5), path)
    return path


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """The folders of the engines that were opened; the word in a folder's scheduler says what the engine is like."""
    opened: list[Path | None] = []
    alike: dict[str, Callable[[], FakeEngine]] = {
        "leaks": lambda: FakeEngine(lambda script: leak()),
        "hangs": lambda: FakeEngine(lambda script: Violation("hang", "timeout", "no step in 20 s", 3)),
        "broken": lambda: Unbootable(lambda script: None),
    }

    def open_engine(folder: Path | None, **_given: object) -> FakeEngine:
        opened.append(folder)
        file = folder / "sglang/srt/managers/scheduler.py" if folder is not None else None
        word = file.read_text().strip() if file is not None and file.exists() else ""
        return alike.get(word, lambda: FakeEngine(lambda script: None))()

    monkeypatch.setattr(command, "opened", open_engine)
    return opened


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of releases, with an empty folder for each; none is fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "sr-fuzz"
    for release in RELEASES:
        (folder / f"sglang-{release}").mkdir(parents=True)
    return folder


def make(cache: Path, **words: str) -> None:
    for release, word in words.items():
        file = cache / f"sglang-{release.replace('v', '').replace('_', '.')}/sglang/srt/managers/scheduler.py"
        file.parent.mkdir(parents=True)
        file.write_text(word)


# -- releases --------------------------------------------------------------------------------------------------


def test_over_releases_each_verdict_is_a_line_and_the_answers_follow(
    engines: list[Path], cache: Path, finding: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make(cache, v0_5_18="broken", v0_5_19="leaks", v0_5_20="leaks", v0_5_21="hangs")
    assert cli.main(["bisect", str(finding), "--to", "0.5.22", "--json", str(tmp_path / "told.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0.5.16  does not show: no violation in 10 steps",
        "0.5.17  does not show: no violation in 10 steps",
        "0.5.18  does not boot: cannot import SGLang: SyntaxError: invalid syntax, at scheduler.py:1",
        "0.5.19  shows: kv_pages: leaked: page 5 is owned by nobody",
        "0.5.20  shows: kv_pages: leaked: page 5 is owned by nobody",
        "0.5.21  shows something else: hang: timeout: no step in 20 s",
        "0.5.22  does not show: no violation in 10 steps",
        LEAKED,
        "  introduced in 0.5.19 or before; the last without it: 0.5.17 (no verdict: 0.5.18)",
        "  mended in 0.5.22 or before; the last with it: 0.5.20 (no verdict: 0.5.21)",
    ]
    told = json.loads((tmp_path / "told.json").read_text())
    assert [row["verdict"]["kind"] for row in told["rows"]][2:4] == ["does not boot", "shows"]
    assert told["periods"][0]["introduced"] == {"by": "0.5.19", "after": "0.5.17", "undecided": ["0.5.18"]}


def test_all_releases_are_played_if_none_is_named(engines: list[Path], cache: Path, finding: Path, capsys):
    assert cli.main(["bisect", str(finding)]) == 0
    told = capsys.readouterr().out
    assert [line[:6] for line in told.splitlines()[:-1]] == list(RELEASES)
    assert f"does not show from {RELEASES[0]} to {RELEASES[-1]}" in told


def test_quick_plays_fewer(engines: list[Path], cache: Path, finding: Path, capsys):
    make(cache, v0_5_21="leaks", v0_5_22="leaks")
    assert cli.main(["bisect", str(finding), "--to", "0.5.22", "--quick"]) == 0
    told = capsys.readouterr().out
    assert "introduced in 0.5.21; the last without it: 0.5.20" in told
    assert "0.5.17  " not in told


def test_where_nothing_could_tell_the_status_is_2(engines: list[Path], cache: Path, finding: Path, capsys):
    make(cache, v0_5_16="broken", v0_5_17="hangs")
    assert cli.main(["bisect", str(finding), "--to", "0.5.17"]) == 2
    told = capsys.readouterr()
    assert "0.5.16  does not boot" in told.out and "0.5.17  shows something else" in told.out
    assert told.err == f"sr-fuzz: error: {finding}: whether it shows could not be told anywhere\n"


def test_a_release_that_cannot_be_fetched_is_no_verdict_and_an_end_that_does_not_exist_is_refused(
    engines: list[Path], cache: Path, finding: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    def release_folder(version: str) -> Path:
        if version in ("0.5.17", "0.5.99"):
            raise EngineError(f"SGLang {version} cannot be had: no network")
        return cache / f"sglang-{version}"

    for module in (releases, bisecting):
        monkeypatch.setattr(module, "release_folder", release_folder)
    assert cli.main(["bisect", str(finding), "--to", "0.5.18"]) == 0
    assert "0.5.17  trouble: SGLang 0.5.17 cannot be had: no network\n" in capsys.readouterr().out
    assert "0.5.99 cannot be had: no network" in error_of(["bisect", str(finding), "--to", "0.5.99"], capsys)


# -- commits ---------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    for number, word in enumerate(["healthy", "healthy as ever", "broken", "leaks", "leaks ", "healthy again"]):
        made.commit(f"commit {number}", {SCHEDULER: word})
    return made


def over(repository: Repository, finding: Path, good: str, bad: str) -> list[str]:
    return ["bisect", str(finding), "--repo", str(repository.folder), "--good", good, "--bad", bad]


def test_over_commits_the_first_one_with_it_is_named_and_a_broken_one_skipped(
    engines: list[Path], repository: Repository, finding: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(over(repository, finding, "HEAD~5", "HEAD~1")) == 0
    told = capsys.readouterr().out
    ids = repository.git("rev-list", "--reverse", "HEAD").splitlines()
    name = [f"{each[:12]} commit {number}" for number, each in enumerate(ids)]
    assert f"introduced in {name[3]} or before; the last without it: {name[1]} (no verdict: {name[2]})" in told
    assert f"{name[2]}\n    does not boot: cannot import SGLang" in told
    assert all(folder is None or not folder.exists() for folder in engines)
    assert repository.state().count("worktree") == 0 and "/tmp" not in told


def test_the_commit_that_mended_it(engines: list[Path], repository: Repository, finding: Path, capsys):
    assert cli.main(over(repository, finding, "HEAD", "HEAD~2")) == 0
    told = capsys.readouterr().out
    assert "mended in" in told and "commit 5; the last with it:" in told and "introduced" not in told


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("HEAD~5", "HEAD", r"--bad: .* commit 5: does not show \(no violation in 10 steps\); expected that it shows"),
        ("HEAD~2", "HEAD~1", r"--good: .* commit 3: shows \(kv_pages.*\); expected that it does not show"),
        ("HEAD~3", "HEAD~1", r"--good: .* commit 2: does not boot \(cannot import.*expected that it does not show"),
        ("HEAD", "HEAD~5", r"--bad: .* commit 0: does not show \(no violation"),
    ],
)
def test_an_end_that_is_not_as_it_was_said_to_be_is_one_line(
    engines: list[Path], repository: Repository, finding: Path, good: str, bad: str, complaint: str, capsys
):
    assert cli.main(over(repository, finding, good, bad)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(complaint, told), told


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--from", "soon"], "--from, --to: 'soon': no version of SGLang such as 0.5.20"),
        (["--from", "0.5.20", "--to", "0.5.16"], "--from, --to: 0.5.20 comes after 0.5.16"),
        (["--repo", "."], "--repo: needs --good and --bad"),
        (["--repo", ".", "--good", "a"], "--repo: needs --good and --bad"),
        (["--good", "a"], "--good, --bad: name commits"),
        (["--repo", ".", "--good", "a", "--bad", "b", "--from", "0.5.16"], "--from: is about releases"),
        (["--repo", ".", "--good", "a", "--bad", "b", "--quick"], "--quick: is about releases"),
        (["--repo", "no/such", "--good", "a", "--bad", "b"], "no/such: there is no such folder"),
        (["--json", "."], "--json: . is a folder"),
        (["-n", "0"], "-n"),
    ],
)
def test_bad_options_are_one_line(options: list[str], complaint: str, finding: Path, engines: list[Path], capsys):
    assert complaint in error_of(["bisect", str(finding), *options], capsys)
    assert engines == []


def test_a_script_that_says_nothing_is_refused(script_file: Path, engines: list[Path], capsys):
    assert "it does not say what it breaks" in error_of(["bisect", str(script_file)], capsys)


def test_what_this_kind_of_engine_cannot_show_is_refused_at_once(tmp_path: Path, cache: Path, capsys):
    path = tmp_path / "finding.json"
    save_finding(Finding(LEAKED, replace(SCRIPT, config=EngineConfig(tp_size=2)), leak(), "0.0.fake"), path)
    assert "tp_size=2" in error_of(["bisect", str(path)], capsys)
    save_finding(Finding("http_answers:not_passed_on:radix", SCRIPT, leak(), "0.0.fake"), path)
    assert "http_answers:not_passed_on shows on a server alone; try --engine server" in error_of(
        ["bisect", str(path)], capsys
    )
    bug = next(path for path, bug in shipped().items() if bug.engine == "server")
    assert "try --engine server" in error_of(["bisect", str(bug)], capsys)
