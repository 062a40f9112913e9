"""Campaigns on the real scheduler while processes die, messages are malformed, and a configuration does not boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_fuzz import cli
from sr_fuzz.script import AbortAll, EngineConfig, Prompt, Script, StartReq, Step
from sr_fuzz.script.errors import EngineError

ABORTED = Script(EngineConfig(), (StartReq("r0", Prompt(0, 8), 8), Step(2), AbortAll()))

FAULTS = "tests.engine.faulty"


def campaign(out: Path, fault: str, *options: str) -> int:
    arguments = ["--fault", fault, "--seed", "2", "--time", "5m", "--out", str(out), *options]
    return cli.main(["run", *arguments])


def test_a_kill_from_outside_is_no_violation(sr_engine):
    with sr_engine.with_faults(f"{FAULTS}:killed_at_an_abort_of_all") as engine:
        with pytest.raises(EngineError, match="ended from outside by SIGKILL"):
            engine.run(ABORTED)
        assert engine.run(Script(ABORTED.config, ABORTED.actions[:2])).ok, "the engine can go on"


def test_a_campaign_goes_on_when_its_processes_are_killed(tmp_path: Path, capsys):
    fault = f"{FAULTS}:killed_at_an_abort_of_all"
    status = campaign(tmp_path, fault, "--config", "overlap-chunk16", "--max-scripts", "6")
    told = capsys.readouterr().out
    assert status == 0 and "6 scripts in" in told
    assert "the scheduler process was ended from outside by SIGKILL" in told
    assert "could not be played" in told and "No violation found.\n" not in told
    kept = list((tmp_path / "trouble").glob("*.json"))
    assert sorted(path.name.partition("-")[0] for path in kept) == ["playing", "resuming"], "played again, once"
    assert all(path.with_suffix(".txt").is_file() for path in kept)


def test_a_malformed_message_is_a_finding_about_sglang(tmp_path: Path, capsys):
    fault = "sr_fuzz.faults.catalogue.streams:short_finish_reasons"
    assert campaign(tmp_path, fault, "--config", "overlap-chunk16", "--max-scripts", "30") == 0
    told = capsys.readouterr().out
    assert "new finding streams: malformed_message" in told and "trouble" not in told
    (repro,) = tmp_path.glob("test_streams_malformed_message_*.py")
    assert "BatchTokenIDOutput: IndexError" in repro.read_text()


def test_a_configuration_that_does_not_boot_is_named_and_the_others_are_played(tmp_path: Path, capsys):
    configs = ["--config", "overlap-chunk16", "--config", "overlap-chunk8-tiny"]
    assert campaign(tmp_path, f"{FAULTS}:cannot_boot_small_pools", *configs, "--max-scripts", "6") == 0
    told = capsys.readouterr().out
    assert "6 scripts in" in told
    assert "not played: configuration overlap-chunk8-tiny: SGLang did not boot with this configuration" in told
    assert "ValueError: this pool is too small" in told
