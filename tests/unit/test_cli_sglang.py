"""Emitting for SGLang's own scripted runtime, and confirming there and on the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import SCRIPT, error_of
from fake_engine import FakeEngine, leak

from sr_fuzz import cli
from sr_fuzz.cli import sglang_own
from sr_fuzz.engine.upstream.runner import SglangRun
from sr_fuzz.outcome import Violation
from sr_fuzz.script import EngineConfig, Script, StartReq


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> list[Path]:
    """Emitted tests that were played on the local engine; each of them fails."""
    played: list[Path] = []

    def play(path: Path, config: EngineConfig) -> str | None:
        played.append(path)
        return "AssertionError: pages without an owner: [5]"

    monkeypatch.setattr(sglang_own, "complaints", lambda engine: play)
    return played


def test_emit_writes_a_test_for_sglang(
    complaints: list[Path], script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new"), "--cause", "a cause"]
    assert cli.main(arguments) == 0
    path = Path(capsys.readouterr().out.strip())
    source = path.read_text()
    assert path.parent == tmp_path / "new" and path.name.startswith("test_sglang_kv_pages_leaked_")
    assert "r0 = t.start_req(prompt_len=30, prompt_token=" in source and "# Open bug: a cause" in source
    assert len(complaints) == 1


def test_emit_runs_what_it_translated(engine: FakeEngine, complaints: list[Path], script_file: Path, tmp_path: Path):
    assert cli.main(["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new")]) == 0
    original, translated = engine.played
    assert original == SCRIPT
    assert all(a.prompt.uniform for a in translated.actions if isinstance(a, StartReq))


def test_a_finding_that_is_lost_in_translation_is_not_written(
    engine: FakeEngine, complaints: list[Path], script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def rule(script: Script) -> Violation | None:
        uniform = any(a.prompt.uniform for a in script.actions if isinstance(a, StartReq))
        return Violation("liveness", "stuck_waiting", "r0 waits", 9) if uniform else leak()

    engine.rule = rule
    message = error_of(["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new")], capsys)
    assert "the script shows liveness: stuck_waiting instead of kv_pages: leaked" in message
    assert not (tmp_path / "new").exists()


def test_a_test_that_would_see_nothing_is_not_written(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, script_file: Path, tmp_path: Path, capsys
):
    monkeypatch.setattr(sglang_own, "complaints", lambda engine: lambda path, config: None)
    message = error_of(["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new")], capsys)
    assert "kv_pages: leaked does not show in what SGLang's scripted runtime lets a test look at" in message
    assert not (tmp_path / "new").exists()


@pytest.fixture
def sglang_runs(monkeypatch: pytest.MonkeyPatch, complaints: list[Path]) -> list[SglangRun]:
    """The results of the coming runs on SGLang's own scripted runtime, in order."""
    runs: list[SglangRun] = []

    def run(path: Path, faults: Sequence[str], sglang: str | None = None) -> SglangRun:
        assert path.is_file()
        return runs.pop(0)

    monkeypatch.setattr(sglang_own, "run", run)
    return runs


PASSED = SglangRun(True, False, "1 passed", "")
FAILED = SglangRun(False, True, "test_x: AssertionError: pages without an owner: [5]", "")
UNRUN = SglangRun(False, False, "could not be run: not over after 300 s", "")


@pytest.mark.parametrize(
    ("runs", "status", "verdict"),
    [
        ([FAILED], 1, "reproduced: in 1 of 1 runs on SGLang's own scripted runtime"),
        ([PASSED, FAILED], 1, "reproduced: in 1 of 2 runs"),
        ([PASSED], 0, "not reproduced: in 0 of 1 runs"),
    ],
)
def test_confirm_says_whether_sglangs_own_runtime_shows_it(
    sglang_runs: list[SglangRun], runs: list[SglangRun], status: int, verdict: str, script_file: Path, capsys
):
    sglang_runs += runs
    assert cli.main(["confirm", str(script_file), "--on", "sglang", "-n", str(len(runs))]) == status
    output = capsys.readouterr().out
    assert verdict in output and "AssertionError: pages without an owner: [5]" in output


def test_confirm_tells_a_run_that_did_not_work_from_one_that_shows_nothing(
    sglang_runs: list[SglangRun], script_file: Path, capsys: pytest.CaptureFixture[str]
):
    sglang_runs.append(UNRUN)
    assert cli.main(["confirm", str(script_file), "--on", "sglang"]) == 2
    complaint = "sr-fuzz: error: SGLang's own scripted runtime could not be run: not over after 300 s\n"
    assert capsys.readouterr().err == complaint


def test_confirm_on_the_server(
    engine: FakeEngine, script_file: Path, capsys: pytest.CaptureFixture[str]
):
    shown = iter([None, leak(), None])

    engine.rule = lambda script: next(shown)
    assert cli.main(["confirm", str(script_file), "-n", "2"]) == 1
    assert engine.kinds == [("server", None)]
    assert "reproduced: in 1 of 2 runs on the server engine" in capsys.readouterr().out
    assert cli.main(["confirm", str(script_file), "--on", "server"]) == 0


def test_commands_play_on_the_engine_that_is_asked_for(engine: FakeEngine, script_file: Path, tmp_path: Path):
    cli.main(["replay", str(script_file), "--engine", "persistent"])
    cli.main(["minimise", str(script_file), "--engine", "server"])
    cli.main(["run", "--engine", "server", "--max-scripts", "1", "--out", str(tmp_path / "out")])
    cli.main(["run", "--max-scripts", "1", "--out", str(tmp_path / "out")])
    assert engine.kinds == [("persistent", None), ("server", None), ("server", 3), ("local", None)]


def test_more_configurations_than_a_live_engine_keeps_take_steps(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    engine.rule = lambda script: None
    arguments = ["--engine", "persistent", "--config", "default", "--max-scripts", "1", "--no-canary"]
    assert cli.main(["run", *arguments, "--out", str(tmp_path)]) == 0
    assert engine.kinds == [("persistent", 6)]
    assert "the configurations take turns, 4 + 5 + 5 of them for 20 s each" in capsys.readouterr().out


def test_there_is_nothing_to_confirm_in_a_script_that_breaks_nothing(
    engine: FakeEngine, complaints: list[Path], script_file: Path, capsys: pytest.CaptureFixture[str]
):
    engine.rule = lambda script: None
    assert "nothing to confirm" in error_of(["confirm", str(script_file), "--on", "sglang"], capsys)
