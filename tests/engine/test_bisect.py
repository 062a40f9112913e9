"""Bisection over the commits of a git repository of SGLang, with a real scheduler at each commit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sr_fuzz import cli
from sr_fuzz.outcome import Finding, Violation
from sr_fuzz.outcome.files import save_finding
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq
from tests.repositories import Repository
from tests.source_trees import ABOVE, FREE, FREE_BUT_FOR_THE_FIRST, checkout_with

ONE_TOKEN = Script(EngineConfig(), (StartReq("r0", Prompt(0, 8), 1),))

FREEING = "python/sglang/srt/mem_cache/common.py"
POLICY = "python/sglang/srt/managers/schedule_policy.py"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Of the installed SGLang: as it is, then one that cannot be imported, then one that can and leaks a row."""
    folder = tmp_path_factory.mktemp("repository")
    checkout_with(folder, "srt/mem_cache/common.py", FREE, FREE)
    made = Repository(folder)
    made.commit("healthy")
    policy, freeing = (folder / name for name in (POLICY, FREEING))
    right = policy.read_text()
    policy.unlink()  # a link to the installed file
    made.commit("half of an edit", {POLICY: right.replace(ABOVE, "if priority_diff >> :")})
    made.commit("the other half", {POLICY: right, FREEING: freeing.read_text().replace(FREE, FREE_BUT_FOR_THE_FIRST)})
    return made


@pytest.fixture
def finding(tmp_path: Path) -> Path:
    """What the leak was seen as in another SGLang: the place is another one."""
    path = tmp_path / "finding.json"
    violation = Violation("sglang_idle_check", "failed", "a row is missing", 9)
    save_finding(Finding("sglang_idle_check:failed:radix+overlap:000000", ONE_TOKEN, violation, "0.5.99"), path)
    return path


def arguments(repository: Repository, finding: Path) -> list[str]:
    return ["bisect", str(finding), "--repo", str(repository.folder), "--good", "HEAD~2", "--bad", "HEAD"]


def test_the_commit_that_leaks_is_found_behind_one_that_cannot_be_imported(
    repository: Repository, finding: Path, capsys: pytest.CaptureFixture[str]
):
    before = repository.state()
    assert cli.main(arguments(repository, finding)) == 0
    told = capsys.readouterr().out
    good, broken, bad = repository.git("rev-list", "--reverse", "--pretty=oneline", "HEAD").splitlines()
    good, broken, bad = (f"{line[:12]} {line.partition(' ')[2]}" for line in (good, broken, bad))
    assert f"{good}\n    does not show: no violation" in told
    assert f"{bad}\n    shows: sglang_idle_check: failed" in told and "req_to_token_pool" in told
    assert f"{broken}\n    does not boot: cannot import SGLang: SyntaxError" in told
    assert "at sglang/srt/managers/schedule_policy.py:" in told, "a path in the commit, not in a folder that is gone"
    assert f"introduced in {bad} or before; the last without it: {good} (no verdict: {broken})" in told
    assert repository.state() == before


def test_nothing_is_left_after_ctrl_c(repository: Repository, finding: Path, tmp_path: Path):
    before, temporary = repository.state(), tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "sr_fuzz", *arguments(repository, finding)]
    environment = dict(os.environ) | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        scheduler = "sr-fuzz-own-*/sources/sglang/srt/managers/scheduler.py"
        while running.poll() is None and not list(temporary.glob(scheduler)):
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=120)
    assert running.returncode == 130 and error == b""
    assert list(temporary.iterdir()) == []
    assert repository.state() == before
