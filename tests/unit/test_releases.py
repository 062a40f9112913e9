"""Other releases of SGLang in a cache: they are fetched once, completely, read-only; an error is one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from sr_fuzz import cli
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api import releases
from sr_fuzz.sglang_api.sources import sglang_folder
from sr_fuzz.sglang_api.versions import RELEASES, releases_between

FILES = ["sglang/__init__.py", "sglang/srt/managers/scheduler.py"]


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Replaces pip: puts a package into its target, or fails. Counts its calls."""
    fake = SimpleNamespace(calls=0, returncode=0, stderr="", files=FILES)

    def run(command: list[str], **_options: object) -> SimpleNamespace:
        fake.calls += 1
        target = Path(command[command.index("--target") + 1])
        for name in fake.files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text("")
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
    with pytest.raises(EngineError, match="SGLang 0.5.20 cannot be had: No matching distribution"):
        releases.release_folder("0.5.20")
    assert list((tmp_path / "sr-fuzz").iterdir()) == []
    pip.returncode = 0
    assert releases.release_folder("0.5.20").is_dir()


def test_a_cache_that_cannot_be_written_to_is_one_line(pip: SimpleNamespace, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="cannot be unpacked in"):
        releases.release_folder("0.5.20")


def test_a_cache_folder_that_is_not_absolute_is_ignored(monkeypatch, tmp_path: Path):
    """As the XDG base directory specification says: it would be another folder in each working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("cache", "./cache", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert releases.cache_folder() == tmp_path / ".cache" / "sr-fuzz"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert releases.cache_folder() == tmp_path / "cache" / "sr-fuzz"


def test_the_command_line_says_it_in_one_line(pip: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pip.returncode, pip.stderr = 1, "ERROR: No matching distribution found for sglang==0.4.0"
    assert cli.main(["run", "--sglang", "0.4.0", "--out", os.fspath(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sr-fuzz: error: SGLang 0.4.0 cannot be had") and error.count("\n") == 1


# -- what --sglang takes ---------------------------------------------------------------------------------------


def tree(folder: Path) -> Path:
    (folder / "sglang" / "srt" / "managers").mkdir(parents=True)
    (folder / "sglang" / "__init__.py").write_text("")
    (folder / "sglang" / "srt" / "managers" / "scheduler.py").write_text("")
    return folder


def test_a_tree_may_be_named_by_its_checkout_its_python_folder_or_the_package(tmp_path: Path, pip: SimpleNamespace):
    python = tree(tmp_path / "checkout" / "python")
    for named in (tmp_path / "checkout", python, python / "sglang"):
        assert sglang_folder(str(named)) == python
    assert pip.calls == 0


def test_a_wheel_is_unpacked_once_whatever_its_name(tmp_path: Path, pip: SimpleNamespace):
    first, second, other = (tmp_path / f"{name}.whl" for name in "abc")
    first.write_bytes(b"1"), second.write_bytes(b"1"), other.write_bytes(b"2")
    assert sglang_folder(str(first)) == sglang_folder(str(second)) != sglang_folder(str(other))
    assert pip.calls == 2


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("newest", "no version of SGLang such as 0.5.20, and there is no such folder"),
        ("../../etc/none", "no version of SGLang such as 0.5.20, and there is no such folder"),
        ("no-such.whl", "cannot be read: No such file or directory"),
        ("", "SGLang '': expected a version such as 0.5.20, a source tree or a wheel"),
        ("~nobody-of-that-name/x", "SGLang '~nobody-of-that-name/x': "),
        ("9" * 5000, "no version of SGLang such as 0.5.20|File name too long"),
        (".", "no source tree of SGLang: there is no python/sglang, sglang or srt/managers/scheduler.py in it"),
    ],
)
def test_anything_else_is_refused_in_one_line(pip: SimpleNamespace, tmp_path: Path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=says) as refused:
        sglang_folder(source)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500 and pip.calls == 0


def test_one_release_is_fetched_once_however_it_is_written(pip: SimpleNamespace):
    assert len({sglang_folder(source) for source in ("0.5.20", "v0.5.20", " 0.5.20\n")}) == 1
    assert pip.calls == 1


def test_a_link_called_sglang_is_a_package(tmp_path: Path, pip: SimpleNamespace):
    package = tree(tmp_path / "checkout") / "sglang"
    (tmp_path / "odd").mkdir()
    (tmp_path / "other").symlink_to(package)
    (tmp_path / "odd" / "sglang").symlink_to(tmp_path / "other")
    assert sglang_folder(str(tmp_path / "odd" / "sglang")) == tmp_path / "odd"


def test_a_wheel_of_something_else_is_refused(pip: SimpleNamespace, tmp_path: Path):
    pip.files = ["sglang/__init__.py"]
    (tmp_path / "a.whl").write_bytes(b"1")
    with pytest.raises(EngineError, match="a.whl: no wheel of SGLang: there is no sglang.srt.managers"):
        sglang_folder(str(tmp_path / "a.whl"))


# -- ranges of releases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, RELEASES),
        ("0.5.21", None, ("0.5.21", "0.5.22", "0.5.23")),
        (None, "0.5.17", ("0.5.16", "0.5.17")),
        ("0.5.20", "0.5.20", ("0.5.20",)),
        ("0.5.15.post1", "0.5.17", ("0.5.15.post1", "0.5.16", "0.5.17")),
        ("0.5.22.post1", "0.6", ("0.5.22.post1", "0.5.23", "0.6")),
    ],
)
def test_the_releases_between_two_are_the_tested_ones_and_the_two(first: str, last: str, expected: tuple[str, ...]):
    assert releases_between(first, last) == expected


@pytest.mark.parametrize(
    ("first", "last", "complaint"),
    [("soon", None, "'soon': no version"), ("0.5.20", "0.5.19", "0.5.20 comes after 0.5.19"), ("0.6", None, "after")],
)
def test_a_range_that_is_none_is_refused(first: str, last: str, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        releases_between(first, last)
