"""Green means green: only the promised bug is an expected failure, and an engine that breaks is an error."""

from __future__ import annotations

import unittest
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from msgspec.structs import replace

from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.outcome import Finding, Outcome, Violation, signature
from sr_fuzz.script import EngineConfig, Script, Step
from sr_fuzz.script.errors import EngineError
from sr_fuzz.testing.known_bug import BugShown, OtherFailure, assert_bug_is_gone
from sr_fuzz.testing.test_case import CustomTestCase
from tests.unit.test_plugin import run_pytest

LEAK = Violation("kv_pages", "leaked", "page 5 is owned by nobody", 6, "end")
SCRIPT = Script(EngineConfig(), (Step(),))
FINDING = Finding(signature(LEAK, SCRIPT.config), SCRIPT, LEAK, "0.5.23")

ENGINES = '''
import types
import pytest
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.script.errors import EngineError

def violation(invariant, rule):
    return Outcome("h", "0.5.23", Violation(invariant, rule, "what was seen", 6, "end"))

def breaks(*_args):
    raise EngineError("the configuration process is gone")

def asserts(*_args):
    assert False, "a mistake in the engine"

# What an engine of sr_fuzz would raise.
asserts = types.FunctionType(asserts.__code__, {"__name__": "sr_fuzz.engine.local.engine"})

RUNS = {
    "promised": lambda script: violation("kv_pages", "leaked"),
    "face": lambda script: violation("streams", "reordered"),
    "other": lambda script: violation("tree_locks", "locked_at_end"),
    "healthy": lambda script: Outcome("h", "0.5.23"),
    "unchecked": lambda script: Outcome("h", "0.5.23", not_checked={"kv_pages": "this SGLang has no pages"}),
    "breaks": breaks,
    "asserts": asserts,
}

@pytest.fixture(params=RUNS)
def sr_engine(request):
    return types.SimpleNamespace(run=RUNS[request.param], sglang_version="0.5.23")
'''

OLD = '''
import pytest
from sr_fuzz.script import EngineConfig, Script, Step

SIGNATURE = "kv_pages:leaked:radix+overlap"

ALSO_SEEN_AS = ("streams:*",)

SCRIPT = Script(config=EngineConfig(), actions=(Step(),))


@pytest.mark.xfail(strict=True, reason="why")
def test_bug(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(ENGINES)
    return tmp_path


def verdicts(folder: Path, *arguments: str) -> tuple[dict[str, str], str]:
    """What pytest says of each behaviour of the engine, and all that it printed."""
    shown = run_pytest("-rA", *arguments, cwd=folder).stdout
    lines = [line for line in shown.splitlines() if "::test_" in line and line.split()[0].isupper()]
    return {line.partition("[")[2].partition("]")[0]: line.split()[0] for line in lines}, shown


EXPECTED = {
    "promised": "XFAIL",
    "face": "XFAIL",
    "other": "FAILED",
    "healthy": "FAILED",
    "unchecked": "FAILED",
    "breaks": "ERROR",
    "asserts": "ERROR",
}


def test_a_file_of_an_earlier_version_expects_the_promised_bug_alone(folder: Path):
    (folder / "test_old.py").write_text(OLD)
    found, shown = verdicts(folder)
    assert found == EXPECTED
    assert "tree_locks:locked_at_end:radix+overlap, not kv_pages:leaked:radix+overlap or streams:*" in shown


def test_an_emitted_test_expects_the_promised_bug_and_its_listed_signatures_alone(folder: Path):
    path = emit(FINDING, folder, known_cause="why")
    path.write_text(path.read_text().replace("ALSO_SEEN_AS = ()", 'ALSO_SEEN_AS = ("streams:*",)'))
    found, shown = verdicts(folder)
    assert found == EXPECTED
    assert "kv_pages was not checked, so that nothing is known of the bug: this SGLang has no pages" in shown


def test_a_test_of_an_open_finding_says_which_other_violation_its_script_shows(folder: Path):
    path = emit(FINDING, folder)
    found, shown = verdicts(folder)
    assert found == EXPECTED | {"promised": "FAILED", "face": "FAILED", "healthy": "PASSED"}
    assert f"its script shows something else, tree_locks:locked_at_end:radix+overlap, not {FINDING.signature}" in shown
    assert path.exists()


IN_EACH_PHASE = '''
import pytest
from sr_fuzz.script.errors import EngineError
from sr_fuzz.testing.expected_failures import NotStarted

@pytest.fixture
def sr_engine():
    yield
    raise RuntimeError("the engine cannot be closed")

@pytest.fixture
def sr_server():
    raise OSError("no memory for a server")

@pytest.fixture
def sr_server_engine():
    raise NotStarted("the engine does not start")

@pytest.fixture
def oldest_engine():
    raise EngineError("no such release")

@pytest.mark.xfail(strict=True)
def test_tear_down(sr_engine):
    assert False

@pytest.mark.xfail
def test_set_up(sr_server):
    pass

@pytest.mark.xfail
def test_own_fixture(oldest_engine):
    pass

@pytest.mark.xfail
def test_caught():
    try:
        raise EngineError("broken")
    except EngineError:
        assert False, "no outcome"

@pytest.mark.xfail
def test_of_others():
    assert False

@pytest.mark.xfail
def test_asked_for_later(request):
    request.getfixturevalue("sr_server_engine")

@pytest.mark.xfail(run=False, reason="takes the machine down")
def test_not_run(sr_server):
    pass
'''


def test_an_engine_is_an_error_in_every_phase_and_other_expected_failures_are_as_they_were(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(IN_EACH_PHASE)
    result = run_pytest("-rA", "--junitxml=report.xml", cwd=tmp_path)
    for line in (
        "ERROR test_it.py::test_tear_down",
        "ERROR test_it.py::test_set_up",
        "ERROR test_it.py::test_own_fixture",
        "ERROR test_it.py::test_caught",
        "ERROR test_it.py::test_asked_for_later",
        "XFAIL test_it.py::test_of_others",
        "XFAIL at setup of test_it.py::test_not_run",
    ):
        assert line in result.stdout
    assert "5 errors" in result.stdout and result.returncode == pytest.ExitCode.TESTS_FAILED
    [suite] = ET.parse(tmp_path / "report.xml").getroot()
    assert int(suite.attrib["failures"]) + int(suite.attrib["errors"]) == 5


def test_it_holds_in_the_processes_of_xdist(folder: Path):
    pytest.importorskip("xdist")
    (folder / "test_old.py").write_text(OLD)
    assert verdicts(folder, "-n", "1")[0] == EXPECTED


class _Case(CustomTestCase):
    __test__ = False  # pytest would run it by itself
    error: Exception

    @unittest.expectedFailure
    def runTest(self):
        raise self.error


@pytest.mark.parametrize(("error", "expected"), [(AssertionError("the bug"), 1), (EngineError("no server"), 0)])
def test_a_test_case_expects_no_engine_that_breaks(error: Exception, expected: int):
    case, result = _Case(), unittest.TestResult()
    case.error = error
    case.run(result)
    assert (len(result.expectedFailures), len(result.errors)) == (expected, 1 - expected)


@pytest.mark.parametrize(
    ("outcome", "raised"),
    [
        (Outcome("h", "0.5.23", LEAK), BugShown),
        (Outcome("h", "0.5.23", replace(LEAK, rule="owned_twice")), OtherFailure),
        (Outcome("h", "0.5.23", not_checked={"kv_pages": "why"}), OtherFailure),
    ],
)
def test_the_assertion_tells_the_bug_from_anything_else(outcome: Outcome, raised: type[BaseException]):
    with pytest.raises(raised):
        assert_bug_is_gone(outcome, SCRIPT, FINDING.signature)
    assert_bug_is_gone(Outcome("h", "0.5.23", not_checked={"streams": "why"}), SCRIPT, FINDING.signature)
    assert not issubclass(OtherFailure, AssertionError)
