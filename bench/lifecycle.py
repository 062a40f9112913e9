"""Starts and stops the server engine repeatedly, sometimes by ``kill -9``, and looks for what is left behind.

This is not a test: a cycle takes half a minute. Prints a line for each cycle, then the medians and what `ps` and
/dev/shm show that was not there before. Usage: ``python -m bench.lifecycle [--cycles 20] [--scheduler 5] [--owner 5]``.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from sr_fuzz.engine.live.server import ScriptedHttpServer
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIZES = {"max_total_tokens": 128, "chunked_prefill_size": 16, "max_running_requests": 6}
SCRIPT = Script(EngineConfig(), (StartReq("r0", Prompt(0, 40), 8), Step(5)))

# A shutdown that takes longer has failed.
_GONE_S = 30.0

_OWNER = f"""
import time
from sr_fuzz.engine.live.server import ScriptedHttpServer
server = ScriptedHttpServer.start(**{SIZES!r})
print(server.folder, flush=True)
time.sleep(1000)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--scheduler", type=int, default=5, help="how many of them end by kill -9 of the scheduler")
    parser.add_argument("--owner", type=int, default=5, help="how many end by kill -9 of the process that started it")
    arguments = parser.parse_args()
    kinds = ["scheduler"] * arguments.scheduler + ["owner"] * arguments.owner
    kinds += ["shutdown"] * (arguments.cycles - len(kinds))
    before, seconds = _state(), []
    print(f"before: {len(before)} processes, shared segments and private folders")
    for number, kind in enumerate(kinds, 1):
        started, ended = _CYCLES[kind]()
        seconds.append((kind, started, ended))
        left = _state() - before
        print(f"{number:3d}  {kind:<9}  start {started:5.1f} s  end {ended:5.2f} s  left: {sorted(left) or 'nothing'}")
    for kind in dict.fromkeys(kinds):
        starts, ends = zip(*[(s, e) for k, s, e in seconds if k == kind])
        print(f"{kind:<9}  median start {statistics.median(starts):.1f} s, end {statistics.median(ends):.2f} s")
    left = _state() - before
    print(f"after: {sorted(left) or 'nothing that was not there before'}")
    return 1 if left else 0


def _shut_down() -> tuple[float, float]:
    server, took = _start()
    assert server.run(SCRIPT).ok
    at = time.monotonic()
    server.shutdown()
    return took, time.monotonic() - at


def _kill_scheduler() -> tuple[float, float]:
    """The start-up time, and the time from the kill to the report."""
    server, took = _start()
    pid = server.scheduler_pid
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    try:
        while not server.is_dead and time.monotonic() - at < _GONE_S:
            time.sleep(0.01)
        return took, time.monotonic() - at
    finally:
        server.shutdown()


def _kill_owner() -> tuple[float, float]:
    """The start-up time, and the time from the kill until no process and no folder is left."""
    at = time.monotonic()
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True)
    folder = Path(owner.stdout.readline().strip())
    took = time.monotonic() - at
    family = psutil.Process(owner.pid).children(recursive=True)
    at = time.monotonic()
    owner.kill()
    owner.wait()
    while (folder.exists() or _running(family)) and time.monotonic() - at < _GONE_S:
        time.sleep(0.01)
    return took, time.monotonic() - at


_CYCLES = {"shutdown": _shut_down, "scheduler": _kill_scheduler, "owner": _kill_owner}


def _start() -> tuple[ScriptedHttpServer, float]:
    at = time.monotonic()
    return ScriptedHttpServer.start(**SIZES), time.monotonic() - at


def _running(family: list[psutil.Process]) -> bool:
    return any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def _state() -> set[str]:
    """Engine processes, shared memory and private folders on this machine."""
    state = {f"/dev/shm/{path.name}" for path in Path("/dev/shm").iterdir()}
    state |= {str(path) for path in Path(tempfile.gettempdir()).glob("sr-fuzz-*")}
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["status"] != psutil.STATUS_ZOMBIE and ("sr_fuzz.engine" in line or "sglang::" in line):
            state.add(f"{process.info['pid']} {line[:60]}")
    return state


if __name__ == "__main__":
    sys.exit(main())
