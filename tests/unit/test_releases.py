"""Other releases of SGLang in a cache: fetched once, whole, read-only; trouble is one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from sr_fuzz import cli
from sr_fuzz.script.errors import EngineError, UnsupportedVersion
from sr_fuzz.sglang_api import releases


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Takes the place of pip: puts a package into its target, or fails. Counts its calls."""
    fake = SimpleNamespace(calls=0, returncode=0, stderr="")

    def run(command: list[str], **_options: object) -> SimpleNamespace:
        fake.calls += 1
        target = Path(command[command.index("--target") + 1])
        (target / "sglang").mkdir(parents=True)
        (target / "sglang" / "__init__.py").write_text("")
        return SimpleNamespace(returncode=fake.returncode, stderr=fake.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return fake


def test_a_release_is_fetched_once_and_cannot_be_written_to(pip: SimpleNamespace):
    folder = releases.release_folder("0.5.20")
    assert (folder / "sglang" / "__init__.py").exists()
    assert releases.release_folder("0.5.20") == folder
    assert pip.calls == 1
    modes = [path.stat().st_mode & 0o222 for path in [folder, *folder.rglob("*")]]
    assert modes == [0] * len(modes)
    assert releases.release_folder("0.5.21") != folder


def test_what_pip_could_not_do_leaves_nothing_behind(pip: SimpleNamespace, tmp_path: Path):
    pip.returncode, pip.stderr = 1, "WARNING: retrying\nERROR: No matching distribution found for sglang==0.5.20\n\n"
    with pytest.raises(EngineError, match="SGLang 0.5.20 cannot be had: ERROR: No matching distribution"):
        releases.release_folder("0.5.20")
    assert list((tmp_path / "sr-fuzz").iterdir()) == []
    pip.returncode = 0
    assert releases.release_folder("0.5.20").is_dir()


@pytest.mark.parametrize("version", ["0.5.12", "0.6.0", "newest", "../../etc"])
def test_a_release_that_is_not_supported_is_refused_before_anything_is_fetched(pip: SimpleNamespace, version: str):
    with pytest.raises(UnsupportedVersion, match="is not supported: this sr_fuzz runs SGLang"):
        releases.release_folder(version)
    assert pip.calls == 0


def test_a_cache_that_cannot_be_written_to_is_one_line(pip: SimpleNamespace, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="cannot be unpacked in"):
        releases.release_folder("0.5.20")


def test_the_command_line_says_it_in_one_line(pip: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["run", "--sglang", "0.4.0", "--out", os.fspath(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sr-fuzz: error: SGLang 0.4.0 is not supported") and error.count("\n") == 1
