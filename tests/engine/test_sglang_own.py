"""A finding that is written out for SGLang shows on SGLang's own scripted runtime as it does here."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from sr_fuzz.invariants import ALL

from sr_fuzz import cli
from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.emit.public_api import to_public_api
from sr_fuzz.emit.sglang_checks import checks_for
from sr_fuzz.emit.sglang_repro import SCRIPT_FUNCTION, emit_sglang
from sr_fuzz.engine.settings import engine_kwargs
from sr_fuzz.engine.upstream.runner import complaint_of, run_file
from sr_fuzz.faults.catalogue import FAULTS
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.script import Script, to_json
from tests.faults.triggers import SCRIPTS

ROOT = Path(__file__).resolve().parents[2]


def emitted(engine, script: Script, folder: Path) -> Path:
    """A test of what ``script`` breaks on ``engine``, after a translation into SGLang's API."""
    return emit_sglang(found(engine, script), folder)


def found(engine, script: Script) -> Finding:
    translated = to_public_api(script)
    # `admission` breaks before liveness does when a request waits although there is room, but the API cannot show it.
    wanted = [one.name for one in ALL if one.name != "admission"]
    violation = engine.run(translated, invariants=wanted).violation
    assert violation is not None
    return Finding(signature(violation, script.config), translated, violation, "0.5.23")


# One fault for each kind of check that a test can carry.
@pytest.mark.parametrize(
    "name",
    [
        "double_free", "freed_too_early", "unfreed_row", "skipped_unlock", "corrupted_page", "missed_stop",
        "advanced_while_paused", "lost_request", "starved_request", "late_abort", "missed_retraction",
    ],
)  # fmt: skip
def test_its_own_checks_see_the_fault_and_nothing_without_it(sr_engine, name: str, tmp_path: Path):
    script = SCRIPTS[name]
    with sr_engine.with_faults(FAULTS[name].path) as engine:
        finding = found(engine, script)
        path = emit_sglang(finding, tmp_path)
        complaint = complaint_of(engine, path, SCRIPT_FUNCTION, script.config)
        assert complaint is not None
        if finding.violation.invariant != "exception":  # of which SGLang's runtime says that its server died
            said = checks_for(finding.violation, script.config).says
            assert re.search(said, complaint), "with a known cause, this is what is expected"
    assert complaint_of(sr_engine, path, SCRIPT_FUNCTION, script.config) is None


def test_the_text_for_an_issue_holds_a_test_that_was_tried(tmp_path: Path, capsys):
    [path] = [path for path in shipped() if path.stem == "liveness_stuck_waiting_fcd3c6"]
    assert cli.main(["emit", str(path), "--format", "issue", "--out", str(tmp_path)]) == 0
    told = Path(capsys.readouterr().out.strip()).read_text()
    assert "shown by 5 of 5 fresh runs" in told and f"Cause: {shipped()[path].reason}" in told
    assert "class TestLivenessStuckWaiting(ScriptedTestCase):" in told and "t.start_req(prompt_len=505" in told


# One server plays both, since the start of a server takes most of the time.
BESIDE = """
from sglang.test.scripted_runtime.test_case import ScriptedTestCase
from sr_fuzz.engine.upstream.script_player import play
from {module} import {script}

class TestBoth(ScriptedTestCase):
    ENGINE_KWARGS = {kwargs!r}

    def test_emitted(self):
        self.server.execute_script({script})

    def test_played(self):
        self.server.execute_script(play, args=({json!r}, {record!r}))
"""


def test_sglangs_own_runtime_shows_it_and_agrees_with_ours_step_by_step(sr_engine, tmp_path: Path):
    """With the fault the test fails there; without it, it passes, and a record of the script is the same as ours."""
    fault, script = FAULTS["starved_request"], to_public_api(SCRIPTS["starved_request"])
    with sr_engine.with_faults(fault.path) as engine:
        path = emitted(engine, script, tmp_path)
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    encoded = to_json(script).decode()
    beside = tmp_path / "test_beside.py"
    fields = script.config.__struct_fields__
    kwargs = {name: value for name, value in engine_kwargs(script.config).items() if name in fields}
    names = {"module": path.stem, "script": SCRIPT_FUNCTION, "kwargs": kwargs}
    beside.write_text(BESIDE.format(**names, json=encoded, record=str(theirs)))
    assert sr_engine.run(script).ok  # This boots the engine, so that the following runs leave no new processes behind
    before = set(psutil.Process().children(recursive=True))
    # In parallel, since each starts a server.
    with ThreadPoolExecutor() as pool:
        broken = pool.submit(run_file, path, faults=[fault.path], sys_path=[str(ROOT)])
        healthy = pool.submit(run_file, beside, sys_path=[str(ROOT)])
    assert broken.result().failed and not broken.result().passed, broken.result().output
    assert "AssertionError: still busy after" in broken.result().summary
    assert healthy.result().passed and not healthy.result().failed, healthy.result().output
    player = "sr_fuzz.engine.upstream.script_player:play"
    job = sr_engine.execute(player, config=script.config, args=(encoded, str(ours)))
    assert job.ok
    assert json.loads(theirs.read_text()) == json.loads(ours.read_text())
    assert len(json.loads(ours.read_text())["outputs"]["r0"]) == 20
    # None of its processes outlives it.
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_fault_that_is_not_there_is_no_result(tmp_path: Path):
    path = tmp_path / "test_nothing.py"
    path.write_text("")
    run = run_file(path, faults=["no.such:fault"])
    assert not run.passed and not run.failed
    assert "fault 'no.such:fault': No module named 'no'" in run.summary


def test_a_file_without_a_test_is_no_result(tmp_path: Path):
    path = tmp_path / "test_nothing.py"
    path.write_text("")
    assert run_file(path).summary == "could not be run: no tests in the file"
