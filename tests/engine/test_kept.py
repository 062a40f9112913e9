"""A kept tree of processes is gone without a trace when it is closed, and when its owner is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sr_fuzz.engine.live.keeper_client import KeptProcess

# Bounds of a test that has failed already; a passing test takes milliseconds.
GONE_S = 10.0

# A process of the kind that engines have: with a child in another session, shared memory, and a temporary file.
TREE = """
import mmap, os, subprocess, sys, tempfile, time
segment = os.open("/dev/shm/" + sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(segment, 4096)
mapped = mmap.mmap(segment, 4096)
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
tempfile.mkstemp()
folder = os.environ["FOLDER"]
open(folder + "/draft", "w").write("worker process")
os.rename(folder + "/draft", folder + "/processes/" + str(child.pid))
print("up", flush=True)
time.sleep(1000)
"""


def keep(segment: str) -> KeptProcess:
    return KeptProcess([sys.executable, "-c", TREE, segment], dict(os.environ) | {"FOLDER": "{folder}"})


def wait_until(holds, limit_s: float = GONE_S) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


@pytest.fixture
def segment():
    name = f"sr-fuzz-test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    Path("/dev/shm", name).unlink(missing_ok=True)


def test_closing_leaves_no_process_file_or_shared_memory(segment):
    kept = keep(segment)
    assert wait_until(lambda: "up" in kept.log_tail())
    family = psutil.Process(kept.keeper_pid).children(recursive=True)
    assert len(family) == 2
    assert kept.folder.stat().st_mode & 0o777 == 0o700
    assert list((kept.folder / "tmp").iterdir()), "the tree's temporary files should lie in the private folder"
    assert kept.death() is None
    kept.close()
    assert not kept.folder.exists()
    assert not Path("/dev/shm", segment).exists()
    assert not any(process.is_running() for process in family)
    kept.close()


def test_a_death_in_the_tree_is_reported_with_who_and_how(segment):
    kept = keep(segment)
    try:
        assert wait_until(lambda: list((kept.folder / "processes").iterdir()))
        (child,) = (kept.folder / "processes").iterdir()
        os.kill(int(child.name), signal.SIGSEGV)
        assert wait_until(kept.death)
        assert kept.death() == f"worker process (pid {child.name}) died by SIGSEGV"
        assert kept.death_signal == "SIGSEGV"
    finally:
        kept.close()


def test_shared_memory_of_a_process_that_died_is_removed_too(segment):
    kept = keep(segment)
    try:
        assert wait_until(lambda: "up" in kept.log_tail())
        time.sleep(1.0)  # new segments are looked for ten times a second; a lower bound, not a limit
        os.kill(kept.pid, signal.SIGKILL)
        assert wait_until(kept.death)
    finally:
        kept.close()
    assert not Path("/dev/shm", segment).exists()


def test_shared_memory_of_others_is_left_alone(segment):
    path = Path("/dev/shm", segment)
    path.write_bytes(b"\0" * 4096)
    kept = keep(segment)
    try:
        assert wait_until(lambda: "up" in kept.log_tail())
    finally:
        kept.close()
    assert path.exists()


def test_what_a_killed_keeper_leaves_is_removed_when_its_engine_sees_it(segment):
    kept = keep(segment)
    assert wait_until(lambda: "up" in kept.log_tail())
    assert wait_until(lambda: (kept.folder / "shared-memory").exists()), "noted while the keeper lives"
    family = psutil.Process(kept.keeper_pid).children(recursive=True)
    try:
        os.kill(kept.keeper_pid, signal.SIGKILL)
        assert wait_until(kept.death)
        assert kept.death() == "the process that watches over the engine was ended from outside"
        kept.close()
        assert not kept.folder.exists()
        assert not Path("/dev/shm", segment).exists()
    finally:
        for process in family:  # an engine's processes end with their keeper by themselves
            process.kill()


OWNER = """
import sys
sys.path.insert(0, {root!r})
from tests.engine.test_kept import keep
kept = keep({segment!r})
print(kept.folder, kept.keeper_pid, flush=True)
import time; time.sleep(1000)
"""


def test_a_killed_owner_leaves_nothing(segment):
    root = str(Path(__file__).parents[2])
    source = OWNER.format(root=root, segment=segment)
    owner = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    folder, keeper = owner.stdout.readline().split()
    assert wait_until(lambda: Path("/dev/shm", segment).exists())
    family = psutil.Process(owner.pid).children(recursive=True)
    owner.kill()
    owner.wait()
    assert wait_until(lambda: not Path(folder).exists())
    assert wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert not Path("/dev/shm", segment).exists()
    assert not psutil.pid_exists(int(keeper)) or psutil.Process(int(keeper)).status() == psutil.STATUS_ZOMBIE
