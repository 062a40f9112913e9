"""SGLang as a source tree with local changes: it is played as it is, under its own version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sr_fuzz import cli
from sr_fuzz.outcome.files import load
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, to_json
from tests.source_trees import ABOVE, BELOW, FREE, FREE_BUT_FOR_THE_FIRST, checkout_with, renamed_tree

ONE_TOKEN = Script(EngineConfig(), (StartReq("r0", Prompt(0, 8), 1),))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout_with(
        tmp_path_factory.mktemp("checkout"), "srt/mem_cache/common.py", FREE, FREE_BUT_FOR_THE_FIRST
    )


@pytest.fixture(scope="module")
def preempting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout_with(
        tmp_path_factory.mktemp("preempting"), "srt/managers/schedule_policy.py", ABOVE, BELOW
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_bytes(to_json(ONE_TOKEN))
    return path


def named(tree: Path, version: str | None) -> str:
    """Give the tree a version, or none; returns the version under which it then runs."""
    beside = tree / "python" / "sglang" / "_version.py"
    beside.unlink(missing_ok=True)
    if version is None:
        return f"unknown (tree {tree / 'python'})"
    beside.write_text(f"__version__ = version = {version!r}\n")
    return version


def test_its_bug_shows_in_a_replay(tree: Path, script: Path, capsys):
    name = named(tree, None)
    assert cli.main(["replay", str(script), "--sglang", str(tree)]) == 1
    told = capsys.readouterr()
    assert "req_to_token_pool" in told.out, "what SGLang's own check says of a row that is not free"
    assert f"warning: SGLang {name}: this sr_fuzz was tested with 0.5.16 to 0.5.23" in told.err


def test_a_finding_carries_the_name_of_the_tree(tree: Path, script: Path, tmp_path: Path):
    name, small = named(tree, "0.5.24.dev3+gabc"), tmp_path / "small.json"
    assert cli.main(["minimise", str(script), "--sglang", str(tree / "python"), "--out", str(small)]) == 0
    found = load(small).finding
    assert found.sglang_version == name and "req_to_token_pool" in found.violation.message


def test_what_is_installed_has_no_such_bug(sr_engine):
    assert sr_engine.run(ONE_TOKEN).ok


# -- whole campaigns -------------------------------------------------------------------------------------------

SEED = "5"


def campaign(source: Path, out: Path, *options: str) -> int:
    return cli.main(["run", "--sglang", str(source), "--seed", SEED, "--no-canary", "--out", str(out), *options])


def test_a_comparison_turned_round_is_found_and_its_repro_runs_on_the_tree(
    preempting: Path, tmp_path: Path, capsys
):
    named(preempting, "0.5.24.dev3+gabc")
    out = tmp_path / "found"
    assert campaign(preempting, out, "--config", "priority-preempt", "--max-scripts", "12", "--time", "5m") == 0
    told = capsys.readouterr().out
    assert "new finding priority: preempted_without_cause" in told
    assert f"SGLang 0.5.24.dev3+gabc (tree {preempting / 'python'})" in told
    assert f"pytest --sr-sglang {preempting / 'python'} {out}" in told, "the command that is shown runs it there"
    repro = next(out.glob("test_priority_preempted_without_cause_*.py"))
    text = repro.read_text()
    assert "Found on SGLang 0.5.24.dev3+gabc; shown by 5 of 5 fresh runs." in text
    [command] = [line for line in text.splitlines() if "pytest --sr-sglang" in line]
    assert command.split()[1:] == ["--sr-sglang", str(preempting / "python"), str(repro)]
    on_the_tree = plain_pytest(out, *command.split()[1:])
    assert "0.5.24.dev3+gabc" in on_the_tree and "1 failed" in on_the_tree
    assert "1 passed" in plain_pytest(out, repro.name)
    assert cli.main(["replay", str(repro)]) == 0
    assert f"was found in a source tree: --sglang {preempting / 'python'}" in capsys.readouterr().err


def plain_pytest(folder: Path, *arguments: str) -> str:
    """What pytest prints there, when it is started as a user would start it."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300).stdout


# A field of requests, a field of a sent message, a method of allocators; and the invariants that read them.
RENAMED = {
    "Req.retraction_count": ("retraction", "chunks", "priority"),
    "BatchTokenIDOutput.cached_tokens": ("usage",),
    "BaseTokenToKVPoolAllocator.available_size": (),
}


def test_what_a_tree_lacks_is_named_and_the_run_goes_on(tmp_path: Path, capsys):
    package = renamed_tree(tmp_path, *(name.partition(".")[2] for name in RENAMED))
    assert cli.main(["doctor", "--sglang", str(package)]) in (0, 1)
    doctor = " ".join(capsys.readouterr().out.split())
    options = ["--config", "overlap-chunk16", "--exhausters", "--max-scripts", "10", "--time", "5m"]
    assert campaign(package, tmp_path / "found", *options) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "10 scripts in" in told
    for name, invariants in RENAMED.items():
        assert name in doctor
        for invariant in invariants:
            assert invariant in doctor
            assert f"not checked: {invariant} in 10 scripts (overlap-chunk16): this SGLang has no {name}" in told
    assert "exhaust_kv" in doctor
    assert "not played: exhaust_kv" in told and "this SGLang has no BaseTokenToKVPoolAllocator.available_size" in told


def test_a_tree_without_the_hook_is_refused_in_one_line(tmp_path: Path, capsys):
    package = renamed_tree(tmp_path, "maybe_init_scripted_scheduler_hook")
    assert campaign(package, tmp_path / "found") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(errors) == 1 and "Scheduler.maybe_init_scripted_scheduler_hook is missing" in errors[0]


# As earlier versions emitted it: any error of it is the expected one to pytest.
OPEN_BUG = """
import pytest
from sr_fuzz.script import EngineConfig, Script, Step

SIGNATURE = "kv_pages:leaked:radix+overlap"
SCRIPT = Script(config=EngineConfig(), actions=(Step(),))


@pytest.mark.xfail(strict=True, reason="why")
def test_bug(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
"""


def test_a_tree_that_cannot_be_imported_says_why_in_one_line(tmp_path: Path, script: Path, capsys):
    checkout = checkout_with(tmp_path, "srt/managers/schedule_policy.py", ABOVE, "if priority_diff >> :")
    assert cli.main(["replay", str(script), "--sglang", str(checkout)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(errors) == 1 and "cannot import SGLang: SyntaxError: invalid syntax" in errors[0]
    assert "schedule_policy.py:" in errors[0]
    (tmp_path / "test_open_bug.py").write_text(OPEN_BUG)
    shown = plain_pytest(tmp_path, "--sr-sglang", str(checkout), "-rA", "test_open_bug.py")
    assert "ERROR test_open_bug.py::test_bug" in shown and "1 error" in shown and "xfailed" not in shown
    assert cli.main(["doctor", "--sglang", str(checkout)]) == 2
    doctor = " ".join(capsys.readouterr().out.split())
    assert "SyntaxError" in doctor and "Fuzzing on the CPU will not work here yet." in doctor
