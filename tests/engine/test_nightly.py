"""`sr-fuzz nightly` on real schedulers: what it finds, and that nothing outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from sr_fuzz.faults.catalogue import FAULTS
from sr_fuzz.outcome.files import load

FAULT = FAULTS["dropped_free"].path

# Bounds a test that has failed already.
GONE_S = 30.0


def nightly(store: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sr_fuzz", "nightly", "--store", str(store), "--config", "overlap-chunk16"]
    return subprocess.Popen(
        [*command, "--fault", FAULT, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_seeded_fault_is_found_minimised_and_written_and_known_the_next_night(tmp_path: Path):
    first = nightly(tmp_path, "--max-scripts", "30", "--seed", "1")
    shown, _ = first.communicate(timeout=300)
    assert first.returncode == 0 and "new finding kv_pages: leaked" in shown
    tests = list((tmp_path / "findings").glob("*/test_*.py"))
    found = {load(test).signature for test in tests}
    assert "kv_pages:leaked:radix+overlap" in found
    (test,) = [test for test in tests if load(test).signature == "kv_pages:leaked:radix+overlap"]
    case = load(test.parent / "finding.json")
    assert case.finding is not None and case.finding.reproduced == case.finding.tried > 0
    second = nightly(tmp_path, "--max-scripts", "30", "--seed", "2")
    shown, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and "found before" in shown and "new finding kv_pages: leaked" not in shown


def test_nothing_outlives_a_night_that_is_killed_and_a_signal_ends_it_in_order(tmp_path: Path):
    campaign = nightly(tmp_path, "--time", "300s", "--seed", "1")
    assert campaign.stdout is not None
    for line in campaign.stdout:
        if "new finding" in line:
            break
    processes = psutil.Process(campaign.pid).children(recursive=True)
    assert len(processes) >= 3, "a follower and searchers, each with its engine"
    campaign.kill()
    campaign.wait()
    campaign.stdout.close()
    _, alive = psutil.wait_procs(processes, GONE_S)
    assert not alive
    again = nightly(tmp_path, "--time", "300s", "--seed", "2")
    assert again.stdout is not None
    shown = next(again.stdout)
    assert "night 2 of this store" in shown
    processes = psutil.Process(again.pid).children(recursive=True)
    again.send_signal(signal.SIGTERM)
    rest, _ = again.communicate(timeout=300)
    assert again.returncode == 143 and "Stopped before the time was up" in rest
    _, alive = psutil.wait_procs(processes, GONE_S)
    assert not alive
