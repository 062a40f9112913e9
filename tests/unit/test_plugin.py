"""The pytest plugin, as used from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEALTHY = """
def test_quick():
    pass
"""

SHOW_PROFILE = """
from hypothesis import settings

def test_profile():
    now = settings()
    print("PROFILE", now.max_examples, now.derandomize, now.database, [phase.name for phase in now.phases])
"""


def run_pytest(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")} | environment
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


SHOW_ALL = """
from hypothesis import settings
from sr_fuzz.testing.plugin import PROFILES, register_profile

register_profile("ci")
for name in ("cpu", "ci", "nightly", "gpu"):
    one = settings.get_profile(name)
    print(name, one.max_examples, one.derandomize, one.database, [phase.name for phase in one.phases])
"""


def test_profiles_mean_the_same_whatever_the_environment():
    """With a CI variable set, Hypothesis uses the values of its own ci profile as defaults."""
    clean = {name: value for name, value in os.environ.items() if name != "CI"}
    shown = [
        subprocess.run([sys.executable, "-c", SHOW_ALL], env=env, capture_output=True, text=True, check=True).stdout
        for env in (clean, clean | {"CI": "true"})
    ]
    assert shown[0] == shown[1]
    assert shown[0].splitlines() == [
        "cpu 25 False None ['explicit', 'generate']",
        "ci 30 True None ['explicit', 'generate']",
        "nightly 2000 False None ['explicit', 'generate']",
        "gpu 25 False None ['explicit', 'generate']",
    ]


def test_the_ini_option_loads_a_profile_and_the_command_line_wins(tmp_path):
    (tmp_path / "test_it.py").write_text(SHOW_PROFILE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nsr_profile = nightly\n")
    assert "PROFILE 2000 False" in run_pytest("-s", cwd=tmp_path).stdout
    assert "PROFILE 30 True" in run_pytest("-s", "--hypothesis-profile=ci", cwd=tmp_path).stdout


def test_a_project_that_merely_has_the_plugin_installed_keeps_hypothesis_as_it_is(tmp_path):
    (tmp_path / "test_it.py").write_text(SHOW_PROFILE)
    assert "PROFILE 100 False" in run_pytest("-s", cwd=tmp_path).stdout


def test_a_wrong_ini_value_says_what_is_allowed(tmp_path):
    (tmp_path / "test_it.py").write_text(HEALTHY)
    (tmp_path / "pytest.ini").write_text("[pytest]\nsr_profile = fast\n")
    result = run_pytest(cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "sr_profile: 'fast' is none of cpu, ci, nightly, gpu" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_malformed_fault_path_says_what_is_expected(tmp_path):
    (tmp_path / "test_it.py").write_text(HEALTHY)
    result = run_pytest("--sr-fault", "nonsense", cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--sr-fault nonsense: expected package.module:function" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sr-model", "some/model"], "--sr-model some/model: needs --sr-engine persistent or server"),
        (["--sr-tp", "2"], "--sr-tp 2: several ranks need --sr-engine server, not local"),
        (["--hypothesis-profile=gpu", "--sr-engine", "local"], "the gpu profile needs persistent or server"),
        (["--sr-sglang", "newest"], "--sr-sglang: newest: no version of SGLang such as 0.5.20"),
    ],
)
def test_engine_options_that_make_no_sense_or_do_not_go_together_are_a_usage_error(tmp_path, arguments, said):
    (tmp_path / "test_it.py").write_text(HEALTHY)
    result = run_pytest(*arguments, cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_the_header_names_an_engine_that_was_asked_for_and_only_then(tmp_path):
    (tmp_path / "test_it.py").write_text(HEALTHY)
    asked = run_pytest("--sr-engine", "server", "--sr-tp", "2", "--sr-model", "some/model", cwd=tmp_path).stdout
    assert "sr_fuzz engine: server model=some/model tp_size=2" in asked
    assert "sr_fuzz" not in run_pytest("-p", "no:hypothesispytest", cwd=tmp_path).stdout.partition("plugins:")[0]


NEEDS_A_SERVER = """
def test_server(sr_server):
    assert False, "this test must not run"
"""


def test_without_a_gpu_the_gpu_profile_skips_with_the_reason(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "test_server.py").write_text(NEEDS_A_SERVER)
    folders = ["tests/properties", "tests/regressions", "tests/engine/test_gpu.py", str(tmp_path)]
    result = run_pytest("--hypothesis-profile=gpu", "-rs", *folders, cwd=ROOT)
    assert result.returncode == 0
    assert "no CUDA GPU here" in result.stdout
    assert " passed" not in result.stdout and " failed" not in result.stdout


OLDER_RELEASE = """
from types import SimpleNamespace
import pytest

@pytest.fixture(scope="session")
def sr_engine():
    return SimpleNamespace(sglang_version="0.5.21")
"""

BUGS = """
import pytest

@pytest.mark.sglang_bug("<0.5.22", reason="the cause")
def test_still_there(sr_engine):
    assert False

@pytest.mark.sglang_bug(">=0.5.21", reason="the cause")
def test_gone(sr_engine):
    pass

@pytest.mark.sglang_bug(">0.5.21", reason="the cause")
def test_came_early(sr_engine):
    assert False

@pytest.mark.sglang_bug(">=0.5.21", reason="the cause")
def test_not_played(sr_engine):
    raise RuntimeError("no engine")

@pytest.mark.sglang_bug("<0.5.21", reason="the cause")
def test_mended(sr_engine):
    pass
"""


def test_a_bug_of_some_releases_is_an_expected_failure_in_these_alone(tmp_path):
    (tmp_path / "conftest.py").write_text(OLDER_RELEASE)
    (tmp_path / "test_it.py").write_text(BUGS)
    shown = run_pytest("-rA", cwd=tmp_path).stdout
    assert "XFAIL test_it.py::test_still_there - the cause" in shown
    assert "FAILED test_it.py::test_gone - [XPASS(strict)] the cause" in shown
    assert "FAILED test_it.py::test_came_early - assert False" in shown
    assert "FAILED test_it.py::test_not_played - RuntimeError: no engine" in shown
    assert "PASSED test_it.py::test_mended" in shown


GPU_OF_ANOTHER = """
import pytest

@pytest.mark.gpu
def test_of_another_kind_of_gpu():
    pass
"""


def test_another_project_keeps_the_ci_profile_of_hypothesis_and_its_own_gpu_mark(tmp_path):
    (tmp_path / "test_it.py").write_text(SHOW_PROFILE)
    (tmp_path / "test_gpu.py").write_text(GPU_OF_ANOTHER)
    result = run_pytest("-s", "--hypothesis-profile=ci", cwd=tmp_path)
    assert "PROFILE 100 True" in result.stdout and "2 passed" in result.stdout
