"""What `sr-fuzz doctor` reports for a machine that has something and for a machine that lacks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sr_fuzz.cli import engines
from sr_fuzz.doctor import installation as doctor
from sr_fuzz.doctor import live_checks
from sr_fuzz.doctor.check import Check, Torch
from sr_fuzz.engine.local.engine import LocalEngine

BROKEN_TORCH = Torch("", "OSError: libcudart.so.13: cannot open shared object file", ())
CPU_TORCH = Torch("2.13.0+cpu", "", ())
GPU_TORCH = Torch("2.13.0", "", ("NVIDIA H200",))

LACKING = {
    "old Python": (doctor.check_python((3, 10, 14)), "3.10.14", "3.11"),
    "broken torch": (doctor.check_torch(BROKEN_TORCH), "libcudart.so.13", "CPU build"),
    "no SGLang": (doctor.check_sglang(None), "not installed", "0.5.16 to 0.5.23"),
    "no fork": (doctor.check_platform("win32", has_fork=False, has_prctl=False), "win32 without os.fork", "Linux"),
    "no prctl": (doctor.check_platform("darwin", has_fork=True, has_prctl=False), "darwin without prctl", "Linux"),
    "little memory": (doctor.check_memory(1.94), "1.9 GB free", "about 2 GB"),
    "no git": (doctor.check_git(None), "not found", "contribute"),
    "a tree that is broken": (doctor.check_import("cannot import SGLang: KeyError: 'x'"), "KeyError", "be imported"),
    "no Rust core": (doctor.check_tree_core(False), "not there", "the set `rust`"),
    "no GPU": (doctor.check_gpu(CPU_TORCH), "none", "gpu"),
    "GPU behind a broken torch": (doctor.check_gpu(BROKEN_TORCH), "none", "gpu"),
    "server packages": (
        live_checks.check_packages({"uvicorn": "0.54.0", "soundfile": None, "fastapi": None}),
        "without soundfile, fastapi",
        "only for the server engine",
    ),
    "no shared memory": (live_checks.check_shared_memory(None), "cannot be written", "server engine"),
    "little shared memory": (live_checks.check_shared_memory(31.0), "31 MB free", "32 MB"),
    "long paths": (live_checks.check_sockets("/tmp" + "/x" * 36), "a path of 76 bytes", "at most 74 bytes"),
    "one GPU": (live_checks.check_ranks(1, 100.0), "1 would fit", "each takes a GPU"),
    "memory for one rank": (live_checks.check_ranks(0, 2.5), "1 would fit", "0.7 GB on the CPU"),
    "no GPU kernels": (live_checks.check_kernels(["flashinfer"], on_gpu=True), "without flashinfer", "real model"),
}

THERE = {
    "SGLang of a tree": (doctor.check_sglang("0.5.24.dev3+gabc"), "0.5.24.dev3+gabc, not tested"),
    "Python": (doctor.check_python((3, 11, 0)), "3.11.0"),
    "CPU torch": (doctor.check_torch(CPU_TORCH), "2.13.0+cpu"),
    "oldest SGLang": (doctor.check_sglang("0.5.16"), "0.5.16"),
    "newest SGLang": (doctor.check_sglang("0.5.23"), "0.5.23"),
    "patched SGLang": (doctor.check_sglang("0.5.23.post1"), "0.5.23.post1"),
    "Linux": (doctor.check_platform("linux", has_fork=True, has_prctl=True), "linux"),
    "memory": (doctor.check_memory(2.0), "2.0 GB"),
    "a tree": (doctor.check_import(None), "an engine imports it"),
    "where a tree lies": (doctor.check_sglang("0.5.23", tree=Path("/home/me/sglang")), "0.5.23, in /home/me/sglang"),
    "Rust core": (doctor.check_tree_core(True), "compiled"),
    "git": (doctor.check_git("/usr/bin/git"), "/usr/bin/git"),
    "GPU": (doctor.check_gpu(GPU_TORCH), "NVIDIA H200"),
    "server packages": (live_checks.check_packages({"uvicorn": "0.54.0", "fastapi": "0.163.2"}), "its 2 packages"),
    "shared memory": (live_checks.check_shared_memory(64.0), "64 MB"),
    "short paths": (live_checks.check_sockets("/tmp"), "/tmp"),
    "two GPUs": (live_checks.check_ranks(2, 1.0), "2 would fit"),
    "memory for ranks": (live_checks.check_ranks(0, 24.0), "32 would fit"),
    "GPU kernels": (live_checks.check_kernels([], on_gpu=True), "sgl_kernel"),
}


@pytest.mark.parametrize(("check", "found", "needed"), LACKING.values(), ids=LACKING.keys())
def test_what_is_lacking_comes_with_what_to_do(check: Check, found: str, needed: str) -> None:
    assert not check.ok
    assert found in check.found
    assert needed in check.needed
    assert check.how


@pytest.mark.parametrize(("check", "found"), THERE.values(), ids=THERE.keys())
def test_what_is_there_asks_for_nothing(check: Check, found: str) -> None:
    assert check.ok
    assert found in check.found
    assert check.how == ""


OPTIONAL = ["no git", "no GPU", "server packages", "long paths", "memory for one rank", "no GPU kernels"]


@pytest.mark.parametrize("case", OPTIONAL)
def test_the_main_job_does_not_need_what_is_optional(case: str) -> None:
    assert not LACKING[case][0].required


@pytest.mark.parametrize("case", ["old Python", "broken torch", "no SGLang", "no fork", "little memory"])
def test_the_main_job_needs_the_rest(case: str) -> None:
    assert LACKING[case][0].required


def test_all_checks_of_this_machine_have_their_own_name_and_one_line_each() -> None:
    found = doctor.checks()
    assert len({check.name for check in found}) == len(found)
    assert all(text.isprintable() for check in found for text in (check.name, check.found, check.needed, check.how))


# -- which SGLang ----------------------------------------------------------------------------------------------


def package(folder: Path, version: str = "0.5.20") -> Path:
    (folder / "sglang").mkdir(parents=True)
    (folder / "sglang" / "__init__.py").write_text("")
    (folder / "sglang" / "_version.py").write_text(f"__version__ = {version!r}\n")
    return folder / "sglang"


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The packages that were imported for a test; each of them fails."""
    tried: list[Path] = []

    def try_it(package: Path) -> str:
        tried.append(package)
        return "cannot import SGLang: no module named sglang.srt"

    monkeypatch.setattr(doctor, "why_not_imported", try_it)
    return tried


def found(first: Sequence[str] = ()) -> dict[str, Check]:
    return {check.name: check for check in doctor.checks(first)}


def test_the_sglang_that_an_engine_imports_is_looked_at_and_not_the_installed_one(
    tmp_path: Path, imports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "first", "0.5.20")
    package(tmp_path / "second", "0.5.18")
    seen = found([str(tmp_path / "first"), str(tmp_path / "second")])
    assert seen["SGLang"].found == f"0.5.20, in {tmp_path / 'first' / 'sglang'}"
    assert not seen["contract"].ok and seen["contract"].required
    assert "no module named sglang.srt" in seen["import"].found and not seen["import"].ok
    monkeypatch.syspath_prepend(str(tmp_path / "second"))  # as with PYTHONPATH
    assert found()["SGLang"].found == f"0.5.18, in {tmp_path / 'second' / 'sglang'}"
    assert imports == [tmp_path / "first" / "sglang", tmp_path / "second" / "sglang"]


def test_a_folder_of_that_name_that_is_no_package_is_not_taken_for_it(tmp_path: Path, imports: list[Path]) -> None:
    """A checkout in the current folder is called sglang, too, and what an import finds is the installed package."""
    (tmp_path / "sglang" / "python").mkdir(parents=True)
    seen = found([str(tmp_path)])
    assert "import" not in seen and seen["contract"].ok and not imports
    assert str(tmp_path) not in seen["SGLang"].found


def test_of_a_package_that_lacks_hundreds_of_names_a_screenful_is_listed(tmp_path: Path, imports: list[Path]) -> None:
    package(tmp_path)
    contract = found([str(tmp_path)])["contract"]
    assert len(contract.how.splitlines()) == 41 and contract.how.endswith(" names more")
    assert len(contract.found) < 400


@pytest.mark.usefixtures("imports")
def test_a_tree_that_an_engine_finds_by_itself_is_named_in_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, here = tmp_path / "tree", tmp_path / "here"
    (package(tree) / "srt" / "managers").mkdir(parents=True)
    (tree / "sglang" / "srt" / "managers" / "scheduler.py").write_text("")
    here.mkdir()
    monkeypatch.chdir(here)
    assert engines.search_path(None) == [str(here)]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{tree}")
    monkeypatch.syspath_prepend(str(tree))
    assert engines.search_path(None) == [str(tree), str(here)]
    assert LocalEngine(sys_path=engines.search_path(None)).sglang_tree == str(tree)
    # A package that hides the tree is what is imported.
    package(here)
    assert engines.search_path(None) == [str(here)]


@pytest.mark.parametrize("by", ["the current folder", "PYTHONPATH", "--sglang"])
def test_the_command_looks_at_what_a_run_from_there_would_import(by: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (package(tree) / "srt" / "managers").mkdir(parents=True)
    (tree / "sglang" / "srt" / "managers" / "scheduler.py").write_text("")
    (tmp_path / "here").mkdir()
    environment = dict(os.environ, **({"PYTHONPATH": str(tree)} if by == "PYTHONPATH" else {}))
    more = ["--sglang", str(tree)] if by == "--sglang" else []
    ran = subprocess.run(
        # -P: the current folder is not on the path of this process, as with the program `sr-fuzz`.
        [sys.executable, "-P", "-m", "sr_fuzz", "doctor", *more],
        cwd=tree if by == "the current folder" else tmp_path / "here",
        env=environment | {"COLUMNS": "400"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2 and "0.5.20, in" in ran.stdout
    assert "Fuzzing on the CPU will not work here yet." in ran.stdout


def test_this_interpreter_and_its_torch_pass() -> None:
    passed = {check.name for check in doctor.checks() if check.ok}
    assert {"Python", "torch", "SGLang", "platform"} <= passed


def test_without_a_gpu_nobody_is_told_to_install_kernels() -> None:
    assert live_checks.check_kernels(["sgl_kernel"], on_gpu=False).how == ""


def test_shared_memory_is_measured_and_its_absence_noticed(tmp_path: Path) -> None:
    assert 0 < live_checks.shared_memory_mb(tmp_path) < shutil.disk_usage(tmp_path).total / 1e6
    assert live_checks.shared_memory_mb(tmp_path / "nowhere") is None


def test_looking_does_not_import_sglang() -> None:
    code = "import sys; from sr_fuzz.doctor import installation as d; d.checks(); sys.exit('sglang' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_torch_that_does_not_load_is_reported_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes the import raise
    assert doctor.load_torch().version == ""
    assert "torch" in doctor.load_torch().error


@pytest.fixture
def control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, int], Path]:
    """A control group of a machine with 16 GB available: limit, bytes used, bytes of them that are idle file cache."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16_000_000_000))

    def make(limit: str, used: int, cache: int) -> Path:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"anon {used - cache}\ninactive_file {cache}\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("limit", "used", "cache", "free"),
    [
        ("4000000000", 3_000_000_000, 500_000_000, 1.5),
        ("4000000000", 5_000_000_000, 0, 0.0),
        ("64000000000", 1_000_000_000, 0, 16.0),
        ("max", 3_000_000_000, 0, 16.0),
    ],
    ids=["container", "container over its limit", "container larger than the machine", "no limit"],
)
def test_free_memory_is_the_smaller_of_the_machines_and_the_containers(
    control_group: Callable[[str, int, int], Path], limit: str, used: int, cache: int, free: float
) -> None:
    assert doctor.free_memory_gb(control_group(limit, used, cache)) == free


def test_without_a_control_group_the_machine_counts(
    control_group: Callable[[str, int, int], Path], tmp_path: Path
) -> None:
    assert doctor.free_memory_gb(tmp_path / "nowhere") == 16.0
