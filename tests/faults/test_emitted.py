"""What the fuzzer writes out is a test that fails with the bug and passes without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.faults.catalogue.memory import double_free
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.script import EvictRadix, Prompt, Script, StartReq, Step
from sr_fuzz.shrink.confirm import confirm
from sr_fuzz.shrink.minimise import minimise
from tests.faults.triggers import ACTIONS, CONFIG

ROOT = Path(__file__).resolve().parents[2]

# The actions that trigger the fault, among unrelated actions.
NOISY = Script(
    CONFIG,
    (
        StartReq("other", Prompt(family=3, length=20), max_new_tokens=3),
        Step(2),
        *ACTIONS["double_free"],
        EvictRadix(1),
        StartReq("late", Prompt(family=4)),
        Step(5),
    ),
)


@pytest.fixture(scope="module")
def finding(sr_engine):
    """A finding as a campaign makes it: detected, minimised, confirmed."""
    with sr_engine.with_faults(double_free.path) as engine:
        seen = engine.run(NOISY)
        assert seen.violation is not None
        found = signature(seen.violation, CONFIG)
        small = minimise(NOISY, seen.violation, engine.run, outcome=seen)
        k, n = confirm(small.script, found, engine)
        yield Finding(
            signature=found,
            script=small.script,
            violation=small.violation,
            sglang_version=engine.sglang_version,
            reproduced=k,
            tried=n,
            original_actions=len(NOISY.actions),
            reruns=small.runs,
            faults=engine.faults,
        )


def test_the_finding_is_short_and_reliable(finding):
    assert finding.violation.invariant == "kv_pages"
    assert len(finding.script.actions) < len(ACTIONS["double_free"])
    assert (finding.reproduced, finding.tried) == (5, 5)


def test_the_emitted_test_fails_with_the_fault_and_passes_without(finding, tmp_path):
    path = emit(finding, tmp_path)
    # In parallel, since each starts an engine of its own.
    runs = {"with": _pytest(path, "--sr-fault", double_free.path), "without": _pytest(path)}
    printed = {which: run.communicate()[0] for which, run in runs.items()}
    assert runs["without"].returncode == 0, printed["without"]
    assert "1 passed" in printed["without"]
    assert runs["with"].returncode == 1, printed["with"]
    assert f"kv_pages: {finding.violation.rule}" in printed["with"]


def _pytest(path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", str(path), "-p", "no:cacheprovider", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
