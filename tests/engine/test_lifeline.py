"""Nothing is left running when the user's process ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from sr_fuzz.engine.live.keeper_client import KeptProcess
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.lifetime import locks
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import ConfigNotBooted, ProcessLost
from tests.engine.test_kept import wait_until

PARENT = Path(__file__).parent / "parent.py"

# A killed process tree is gone within milliseconds; this only bounds a test that has already failed.
GONE_S = 10.0
# The same for a boot, which includes an import.
BOOTED_S = 120.0


def start(stage: str, temporary: Path) -> subprocess.Popen:
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = [sys.executable, str(PARENT), stage]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline().strip()
    assert line == ("running" if stage == "run" else "importing"), line
    return process


def tree(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of ``processes`` that still run after a while; a zombie that was not reaped does not count as running."""
    deadline = time.monotonic() + GONE_S
    left = processes
    while left and time.monotonic() < deadline:
        left = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.02)
    return left


def test_children_die_with_a_parent_that_is_killed_while_it_fuzzes(tmp_path):
    process = start("run", tmp_path)
    family = tree(process.pid)
    assert len(family) >= 2, "expected a zygote and a configuration process"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert survivors(family) == []
    assert list(tmp_path.iterdir()) == [], "temporary files are left"


def test_children_die_with_a_parent_that_is_killed_while_sglang_is_imported(tmp_path):
    process = start("import", tmp_path)
    deadline = time.monotonic() + GONE_S
    while not (family := tree(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert family, "expected a zygote"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert survivors(family) == []


def test_close_ends_every_process(sr_engine):
    from sr_fuzz.engine.local.engine import LocalEngine
    from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with LocalEngine(zygote=sr_engine.zygote) as second:
        second.run(Script(EngineConfig(max_total_tokens=72), (StartReq("r0", Prompt(0, 4), 2), Step(3))))
        started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
        assert started
    assert survivors(started) == []


def test_a_boot_that_is_refused_or_killed_leaves_no_file(tmp_path, monkeypatch):
    mark, temporary = tmp_path / "mark", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("SR_FUZZ_TEST_MARK", str(mark))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with LocalEngine(faults=["tests.engine.faulty:ends_its_boot"]) as engine:
        killer = threading.Thread(
            target=lambda: wait_until(mark.exists, BOOTED_S) and os.kill(int(mark.read_text()), signal.SIGKILL)
        )
        killer.start()
        with pytest.raises(ProcessLost, match="the configuration process died at booting"):
            engine.start(EngineConfig())
        killer.join()
        assert list(temporary.iterdir()) == []
        with pytest.raises(ConfigNotBooted, match="ValueError: refused: ") as refused:
            engine.start(EngineConfig())
        assert list(temporary.iterdir()) == []
    report = Path(str(refused.value).splitlines()[0].rpartition(" ")[2])
    assert report.name and not report.exists()


def test_what_a_killed_owner_left_at_a_boot_is_removed_at_the_next_start(tmp_path, monkeypatch):
    mark, temporary = tmp_path / "mark", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("SR_FUZZ_TEST_MARK", str(mark))
    owner = start("boot", temporary)
    assert wait_until(mark.exists, BOOTED_S)
    family = tree(owner.pid)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert survivors(family) == []
    (left,) = temporary.iterdir()  # nobody was left who could remove it
    # A process that was being forked at that moment has the lock until it executes, or ends with its parent.
    assert wait_until(lambda: locks.is_free(left / "lock"), GONE_S)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    KeptProcess([sys.executable, "-c", ""], os.environ).close()
    assert list(temporary.iterdir()) == []
