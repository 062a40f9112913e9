"""Runs a test file on SGLang's own scripted runtime, in separate processes that are cleaned up afterwards.

The process is `sr_fuzz.engine.upstream.main`, with SGLang's server, scheduler hook and context instead of ours. So a
finding that shows there is not caused by our engines.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import unittest
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sr_fuzz.cpu import standins
from sr_fuzz.engine.environment import ORACLE
from sr_fuzz.engine.live.keeper_client import KeptProcess
from sr_fuzz.faults import ENVIRONMENT_VARIABLE
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError

if TYPE_CHECKING:
    from sr_fuzz.engine.local.engine import LocalEngine

# Twice the sum of the start time and the longest time-out of SGLang's runtime for one script.
LIMIT_S = 300.0

_WATCH_S = 0.1

# SGLang's log line when our plugin failed in one of its processes; SGLang continues without the plugin.
_PLUGIN_FAILED = "Failed to execute general plugin: sr_fuzz"

# The error when a message of the script never reached the scheduler; the test then says nothing about the scheduler.
_NEVER_ARRIVED = "ScriptedTokenizerRecvProxy: no "


@dataclass(frozen=True, slots=True)
class SglangRun:
    """The result of a test file. If it neither passed nor failed it could not be run, and `summary` says why."""

    passed: bool
    failed: bool
    summary: str
    """One line."""
    output: str
    """The whole output of the processes."""


def run_file(
    path: Path, *, faults: Sequence[str] = (), limit_s: float = LIMIT_S, sys_path: Sequence[str] = ()
) -> SglangRun:
    """Run the tests in ``path`` on SGLang's own scripted runtime; takes 20 to 60 s to start, more on a busy machine.

    ``faults``: import paths of faults to activate in SGLang's processes. ``limit_s``: wall-clock limit in seconds,
    after which all processes are killed. ``sys_path``: folders that faults are imported from. Without a CUDA GPU the
    model is the oracle, on the CPU. Raises `EngineError` when a fault could not be activated.
    """
    command = [sys.executable, "-m", "sr_fuzz.engine.upstream.main", str(path.resolve()), "{folder}/verdict.json"]
    kept = KeptProcess(command, _environment(faults, sys_path))
    try:
        ended = _await_end(kept, limit_s)
        verdict = kept.folder / "verdict.json"
        told = json.loads(verdict.read_text()) if verdict.exists() else None
        output = (kept.folder / "log").read_text(errors="replace")
    finally:
        kept.close()
    if _PLUGIN_FAILED in output:
        raise EngineError(f"the faults {', '.join(faults) or '(none)'} could not be entered\n{output}")
    return _judged(told, output, ended or f"not over after {limit_s:g} s")


def _await_end(kept: KeptProcess, limit_s: float) -> str | None:
    """Wait for the test process; returns how it ended, None when it did not end in time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if ended := kept.death():
            return ended
        time.sleep(_WATCH_S)
    return None


def _environment(faults: Sequence[str], sys_path: Sequence[str]) -> dict[str, str]:
    environment = dict(os.environ)
    paths = [*sys_path, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment |= {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        ENVIRONMENT_VARIABLE: ",".join(faults),
        # The receive side of SGLang's runtime supports no other codec.
        "SGLANG_USE_PICKLE_IPC": "1",
    }
    if not _has_gpu():
        environment |= standins.environment() | {standins.WANTED: "1", ORACLE: "1"}
    return environment


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _judged(told: dict[str, Any] | None, output: str, otherwise: str) -> SglangRun:
    def unrun(reason: str) -> SglangRun:
        return SglangRun(False, False, f"could not be run: {reason}", output)

    if told is None:
        last = output.rstrip().rpartition("\n")[2]
        return unrun(f"{otherwise}; the last line it printed: {last}" if last else otherwise)
    if "trouble" in told:
        return unrun(told["trouble"])
    broken = [*told["failures"], *told["errors"]]
    for test, text in broken:
        if test.startswith(("setUpClass", "tearDownClass", "setUpModule")) or _NEVER_ARRIVED in text:
            return unrun(_reason(text))
    if broken:
        test, text = broken[0]
        return SglangRun(False, True, f"{test.partition(' ')[0]}: {_reason(text)}", output)
    if told["unexpected_successes"]:
        return SglangRun(False, True, "an expected failure passed", output)
    if not told["tests"]:
        return unrun("no tests in the file")
    return SglangRun(True, False, f"{told['tests']} passed", output)


def _reason(text: str) -> str:
    """Return the line of the output, which may contain several tracebacks, that states the error."""
    errors = [line.strip() for line in text.splitlines() if line[:1].isalpha() and not line.startswith("Traceback")]
    # SGLang's test case raises another error about retries, although there are none.
    telling = [line for line in errors if "retry() exceed" not in line and not line.startswith("During handling")]
    return (telling or errors or ["(no reason given)"])[-1]


# -- on the local engine ---------------------------------------------------------------------------------------


def complaint_of(engine: LocalEngine, path: Path, function: str, config: EngineConfig) -> str | None:
    """Play the script function ``function`` of the test file ``path`` on the local engine, with no invariants of ours.

    Returns the error of its own checks, or of SGLang, in one line; None when there is none.
    """
    job = f"{__name__}:{script_of.__name__}"
    try:
        outcome = engine.execute(job, config=config, args=(str(path.resolve()), function), invariants=())
    except AssertionError as error:
        return _reason(str(error))
    return None if outcome.violation is None else outcome.violation.message


def script_of(t: Any, path: str, function: str) -> Generator:
    """Run the script function ``function`` of the test file ``path``; for `LocalEngine.execute`."""
    _spare_test_case()
    file = Path(path)
    sys.path.insert(0, str(file.parent))
    yield from getattr(importlib.import_module(file.stem), function)(t)


def _spare_test_case() -> None:
    """Replace SGLang's test case, whose import of the HTTP server takes some seconds, for the import of the file."""
    module = ModuleType("sglang.test.scripted_runtime.test_case")
    module.ScriptedTestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules.setdefault(module.__name__, module)
