"""Patches of SGLang's own scripted runtime, none of which a script can observe.

Without a GPU the server gets settings for the CPU; a dead server is detected at once instead of after minutes; and at
the end the server is killed instead of drained, which takes a minute.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Duration of one poll for the script's answer, after which a dead server is detected.
_POLL_MS = 500


def adapt(settings: Mapping[str, Any] | None = None) -> None:
    """Apply the patches for the rest of this process. ``settings``: server arguments that override those of a test."""
    from sglang.test.scripted_runtime.http_server import ScriptedHttpServer

    start = ScriptedHttpServer.start.__func__
    if settings is not None:
        start = _with_settings(start, settings)
    ScriptedHttpServer.start = classmethod(_noting_shared_memory(start))
    ScriptedHttpServer._await_handshake = _noticing_death(ScriptedHttpServer._await_handshake)
    ScriptedHttpServer.execute_script = _noticing_death(ScriptedHttpServer.execute_script)
    ScriptedHttpServer.shutdown = _shutdown_at_once


def _with_settings(start: Any, settings: Mapping[str, Any]) -> Any:
    @functools.wraps(start)
    def start_with_settings(cls: type, **engine_kwargs: Any) -> Any:
        # -1 makes SGLang size the pool from device memory unless the fraction is given; max_total_tokens then caps it.
        extra = {"mem_fraction_static": 0.5} if engine_kwargs.get("chunked_prefill_size") == -1 else {}
        return start(cls, **{**engine_kwargs, **settings, **extra})

    return start_with_settings


def _noting_shared_memory(start: Any) -> Any:
    """Record the file in /dev/shm through which SGLang reports its load; it is not removed when the server dies."""

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
    """Wraps the socket to the scheduler's hook: a poll ends when the server has died. All else is forwarded."""

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
    """Wrap a method that waits for the scheduler's answer, so that it ends when the server has died."""

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
    """``ScriptedHttpServer.shutdown`` without the wait; an error that the hook recorded is still raised."""
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
