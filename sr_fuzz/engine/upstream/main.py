"""Runs a test file on SGLang's own scripted runtime: ``python -m sr_fuzz.engine.upstream.main FILE VERDICT``.

SGLang starts its processes with multiprocessing's ``spawn``, which imports this module anew in each of them, under the
name ``__mp_main__`` and before SGLang: so what SGLang's import needs where there is no GPU is in place there too, and
each of them ends with its parent.

SGLang's runtime is used as it is but for three things, none of which a script can see: without a GPU the server gets
settings for the CPU; a server that has died is noticed at once instead of after minutes; and at the end it is
killed instead of drained, which takes a minute.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import traceback
import unittest
from pathlib import Path
from typing import Any

from sr_fuzz.cpu import missing_modules, standins
from sr_fuzz.engine.parent_death import die_with_parent

if __name__ in ("__main__", "__mp_main__"):
    die_with_parent(os.getppid())
    missing_modules.install()
    if standins.wanted():
        standins.mend_imports()

# How long a poll for the script's answer may leave a dead server unnoticed.
_POLL_MS = 500


def main(path: Path, verdict: Path) -> int:
    """Run the tests in ``path``; write what happened to ``verdict`` as JSON. Returns 0 when there is a verdict."""
    try:
        _check_faults()
        sys.path.insert(0, str(path.parent))
        module = importlib.import_module(path.stem)
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        if suite.countTestCases():
            _adapt_runtime()
    except Exception as error:
        traceback.print_exc()
        line = str(error).strip().partition("\n")[0]
        verdict.write_text(json.dumps({"trouble": f"{path.name}: {type(error).__name__}: {line}"}))
        return 2
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(suite)
    verdict.write_text(json.dumps(_told(result)))
    return 0


def _told(result: unittest.TestResult) -> dict[str, Any]:
    def texts(pairs: list[tuple[Any, str]]) -> list[list[str]]:
        return [[str(test), text] for test, text in pairs]

    return {
        "tests": result.testsRun,
        "failures": texts(result.failures),
        "errors": texts(result.errors),
        "expected_failures": texts(result.expectedFailures),
        "unexpected_successes": [str(test) for test in result.unexpectedSuccesses],
    }


def _check_faults() -> None:
    """SGLang only logs what goes wrong in a plugin: a fault that is not there would look like one nobody saw."""
    from sr_fuzz.faults import ENVIRONMENT_VARIABLE, resolve

    for path in filter(None, os.environ.get(ENVIRONMENT_VARIABLE, "").split(",")):
        resolve(path)


# -- SGLang's runtime ------------------------------------------------------------------------------------------


def _adapt_runtime() -> None:
    from sglang.test.scripted_runtime.http_server import ScriptedHttpServer

    start = ScriptedHttpServer.start.__func__
    ScriptedHttpServer.start = classmethod(_noting_shared_memory(_on_cpu(start) if standins.wanted() else start))
    ScriptedHttpServer._await_handshake = _noticing_death(ScriptedHttpServer._await_handshake)
    ScriptedHttpServer.execute_script = _noticing_death(ScriptedHttpServer.execute_script)
    ScriptedHttpServer.shutdown = _shutdown_at_once


def _on_cpu(start: Any) -> Any:
    @functools.wraps(start)
    def start_on_cpu(cls: type, **engine_kwargs: Any) -> Any:
        from sr_fuzz.oracle.settings import oracle_settings
        from sr_fuzz.sglang_api.server_args import device_settings

        # -1 makes SGLang size the pool from device memory unless the fraction is given; max_total_tokens then caps it.
        extra = {"mem_fraction_static": 0.5} if engine_kwargs.get("chunked_prefill_size") == -1 else {}
        settings = {**oracle_settings(), **device_settings("cpu"), **extra}
        return start(cls, **{**engine_kwargs, **settings})

    return start_on_cpu


def _noting_shared_memory(start: Any) -> Any:
    """SGLang reports its load through a file in /dev/shm, which nobody removes when it dies."""

    @functools.wraps(start)
    def start_and_note(cls: type, **engine_kwargs: Any) -> Any:
        server = start(cls, **engine_kwargs)
        import psutil

        family = psutil.Process(server._server_process.pid).children(recursive=True)
        maps = [memory.path for process in family for memory in process.memory_maps()]
        server._shared_memory = {Path(path) for path in maps if path.startswith("/dev/shm/sglang_")}
        return server

    return start_and_note


class _Impatient:
    """The socket to the scheduler's hook; a poll ends when the server has died. Anything else goes to the socket."""

    def __init__(self, socket: Any, process: Any) -> None:
        self._socket = socket
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def poll(self, timeout_ms: int) -> int:
        left = timeout_ms
        while left > 0:
            if events := self._socket.poll(min(left, _POLL_MS)):
                return events
            if not self._process.is_alive():
                break
            left -= _POLL_MS
        return self._socket.poll(0)


def _noticing_death(waits: Any) -> Any:
    """For a method that waits for the scheduler's answer, which a server that has died never gives."""

    @functools.wraps(waits)
    def wait(self: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(self._socket, _Impatient):
            self._socket = _Impatient(self._socket, self._server_process)
        try:
            waits(self, *args, **kwargs)
        except TimeoutError:
            if self._server_process.is_alive():
                raise
            raise RuntimeError("SGLang's server died while it was starting; see what it printed") from None

    return wait


def _shutdown_at_once(self: Any) -> None:
    """``ScriptedHttpServer.shutdown`` without the wait; an error that the hook left behind is raised all the same."""
    from sglang.srt.utils import kill_process_tree

    if self._shutdown_done:
        return
    self._shutdown_done = True
    fatal_error = self._read_out_of_band_error()
    try:
        kill_process_tree(self._server_process.pid)
    finally:
        self._teardown()
        for path in self._shared_memory:
            path.unlink(missing_ok=True)
    if fatal_error:
        raise AssertionError(f"SGLang's scripted runtime failed:\n{fatal_error.traceback}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
