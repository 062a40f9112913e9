"""What a killed process has left is removed at the next start, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sr_fuzz.lifetime.owned_folders import PREFIX, SHARED_MEMORY, OwnedFolder, owned_folder, remove_leftovers
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api import releases

ROOT = Path(__file__).parents[2]

# Bounds a test that has failed already.
GONE_S = 10.0

OWNER = """
import sys, time
from pathlib import Path
from sr_fuzz.lifetime.owned_folders import OwnedFolder
folder = OwnedFolder(Path(sys.argv[1]))
(folder.path / "package").mkdir()
(folder.path / "package" / "file").write_text("left")
(folder.path / "package").chmod(0o500)
folder.note_segments(sys.argv[2:])
print(folder.path, flush=True)
time.sleep(1000)
"""


def owner(parent: Path, *segments: str) -> tuple[subprocess.Popen, Path]:
    """A process that owns a folder in ``parent``."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(parent), *segments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_is_left_alone_while_its_owner_lives_and_removed_after_it(tmp_path: Path):
    process, folder = owner(tmp_path)
    remove_leftovers(tmp_path)
    assert (folder / "package" / "file").is_file()
    end(process)
    assert folder.is_dir()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_has_the_lock_too_keeps_the_folder(tmp_path: Path):
    """A configuration process continues in a copy of itself."""
    folder = OwnedFolder(tmp_path)
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    os.close(folder._lock)
    remove_leftovers(tmp_path)
    assert folder.path.is_dir()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    remove_leftovers(tmp_path)
    assert not folder.path.exists()


def test_what_is_not_provably_ours_is_left_alone(tmp_path: Path):
    others = [tmp_path / "sr-fuzz-notes", tmp_path / "tmpabc"]
    for folder in others:
        folder.mkdir()
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "file").write_text("precious")
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    (tmp_path / f"{PREFIX}file").write_text("no folder")
    before = sorted(path.name for path in tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (target / "file").read_text() == "precious"


def test_links_in_a_folder_are_removed_and_not_followed(tmp_path: Path):
    (tmp_path / "precious").mkdir(mode=0o755)
    (tmp_path / "precious" / "file").write_text("precious")
    with owned_folder(tmp_path) as folder:
        (folder / "link").symlink_to(tmp_path / "precious")
    assert (tmp_path / "precious" / "file").is_file() and (tmp_path / "precious").stat().st_mode & 0o777 == 0o755
    assert not folder.exists()


def test_shared_memory_of_a_dead_owner_is_removed_unless_its_name_is_used_again(tmp_path: Path):
    names = [f"sr-fuzz-test-{os.getpid()}-{number}" for number in range(2)]
    left, again = (SHARED_MEMORY / name for name in names)
    try:
        left.write_bytes(b"x")
        again.write_bytes(b"x")
        process, _ = owner(tmp_path, *names)
        end(process)
        (SHARED_MEMORY / f"{again.name}-new").write_bytes(b"somebody else's")
        (SHARED_MEMORY / f"{again.name}-new").replace(again)
        remove_leftovers(tmp_path)
        assert not left.exists()
        assert again.read_bytes() == b"somebody else's"
    finally:
        for path in (left, again):
            path.unlink(missing_ok=True)


# -- downloads ---------------------------------------------------------------------------------------------------

PIP = """
import os, sys, time
from pathlib import Path
target = Path(sys.argv[sys.argv.index("--target") + 1])
package = target / "sglang" / "srt" / "managers"
package.mkdir(parents=True)
(package / "scheduler.py").write_text("")
(Path(os.environ["TMPDIR"]) / "wheel").write_bytes(b"0" * 1000)
mark = Path(os.environ["SR_FUZZ_TEST_MARK"])
if not mark.exists():
    mark.with_suffix(".unfinished").write_text(str(os.getpid()))
    mark.with_suffix(".unfinished").rename(mark)
    time.sleep(1000)
"""


@pytest.fixture
def downloads(tmp_path: Path) -> dict[str, str]:
    """The environment of a process with a cache of its own, and with a pip that hangs in its first download."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "pip.py").write_text(PIP)
    (tmp_path / "cache").mkdir()
    paths = os.pathsep.join([str(tmp_path / "pip"), str(ROOT)])
    mine = {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path / "cache"), "SR_FUZZ_TEST_MARK": str(tmp_path / "mark")}
    return dict(os.environ) | mine


def test_a_killed_download_ends_pip_and_leaves_nothing_after_the_next_start(tmp_path: Path, downloads: dict[str, str]):
    fetch = [sys.executable, "-c", "from sr_fuzz.sglang_api.releases import *; print(release_folder('0.0.1'))"]
    owner = subprocess.Popen(fetch, env=downloads)
    deadline = time.monotonic() + GONE_S
    while not (tmp_path / "mark").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    pip = psutil.Process(int((tmp_path / "mark").read_text()))
    owner.kill()
    owner.wait()
    while pip.is_running() and pip.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not pip.is_running() or pip.status() == psutil.STATUS_ZOMBIE
    cache = tmp_path / "cache" / "sr-fuzz"
    assert len(list(cache.iterdir())) == 1
    start = [sys.executable, "-c", "from sr_fuzz.sglang_api.releases import *; remove_unfinished()"]
    subprocess.run(start, env=downloads, check=True)
    assert list(cache.iterdir()) == []
    subprocess.run(fetch, env=downloads, check=True)
    assert [path.name for path in cache.iterdir()] == ["sglang-0.0.1"]
    release = cache / "sglang-0.0.1"
    assert (release / "sglang" / "srt" / "managers" / "scheduler.py").is_file() and not release.stat().st_mode & 0o222


def test_the_start_of_a_command_removes_unfinished_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from sr_fuzz.cli import engines

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sr-fuzz").mkdir()
    process, folder = owner(tmp_path / "sr-fuzz")
    end(process)
    assert folder.exists()
    with engines.start(None):
        assert not folder.exists()


def test_a_user_without_a_home_has_no_cache_to_look_at(monkeypatch: pytest.MonkeyPatch):
    def no_home() -> Path:
        raise EngineError("no home")

    monkeypatch.setattr(releases, "cache_folder", no_home)
    releases.remove_unfinished()


def test_a_folder_without_a_lock_is_removed_when_it_is_old_and_empty_alone(tmp_path: Path):
    new, old, full = (tmp_path / f"{PREFIX}{name}" for name in ("new", "old", "full"))
    for folder in (new, old, full):
        folder.mkdir()
    (full / "file").write_text("somebody's")
    for folder in (old, full):
        os.utime(folder, (0, 0))
    remove_leftovers(tmp_path)
    assert new.exists() and not old.exists() and (full / "file").exists()


@pytest.mark.parametrize("content", ["[]", "no json", '{"../../etc/passwd": 1, "a\\u0000b": 2}'])
def test_an_odd_list_of_shared_memory_hinders_nothing(tmp_path: Path, content: str):
    process, folder = owner(tmp_path)
    (folder / "shared-memory").write_text(content)
    end(process)
    remove_leftovers(tmp_path)
    assert not folder.exists()
