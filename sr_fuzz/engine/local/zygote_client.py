"""The side of the zygote in the user's process: it starts the zygote, and asks it for configuration processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection

from sr_fuzz.engine.process_messages import Boot, Failed, Ready, decode_reply, encode
from sr_fuzz.lifetime.owned_folders import remove_leftovers
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError, ProcessLost

# The import takes 6 to 15 s on an idle machine; a busy one may need several times that.
_IMPORT_LIMIT_S = 180.0

# The processes below a zygote end by its end, so it has ended when they are seen to have; the kernel may take a moment
# until it says so.
_DEATH_S = 0.5


class Zygote:
    """The process that has imported SGLang. It is shared by engines that differ in their faults only.

    When it has ended, that is told once, and the next boot starts another one in its place.
    """

    def __init__(self, sys_path: Sequence[str] = ()) -> None:
        remove_leftovers()
        self._log = tempfile.TemporaryFile(mode="w+b")
        self.sys_path = tuple(sys_path)
        self._closed = False
        self.number = 0
        """How many processes have been started one after the other."""
        try:
            self._start()
        except BaseException:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> None:
        self.number += 1
        self._death_told = False
        environment = dict(os.environ)
        paths = [*self.sys_path, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sr_fuzz.engine.local.zygote", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=environment,
                # Ctrl-C is handled by the user's process, which then closes the engine.
                start_new_session=True,
            )
        try:
            self.sglang_version = self._await_ready()
        except BaseException:
            self.end()
            raise

    def _await_ready(self) -> str:
        self._control.settimeout(_IMPORT_LIMIT_S)
        try:
            data = self._control.recv(65536)
        except TimeoutError:
            raise EngineError(f"SGLang was not imported within {_IMPORT_LIMIT_S:g} s\n{self.log_tail()}") from None
        except OSError:
            data = b""
        self._control.settimeout(None)
        if not data:
            raise self._died_importing()
        reply = decode_reply(data)
        if isinstance(reply, Failed):
            raise EngineError(reply.message)
        assert isinstance(reply, Ready)
        return reply.sglang_version

    def _died_importing(self) -> EngineError:
        kind = ProcessLost if self.death() and self._process.returncode in _KILLED else EngineError
        return kind(f"the process that imports SGLang {self.death() or 'died'}\n{self.log_tail()}")

    def death(self) -> str | None:
        """Return how the process has ended; None while it runs. Call it when a process below it has ended."""
        try:
            code = self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:
            return None
        self._death_told = True
        if code in _KILLED:
            return f"was ended from outside by {signal.Signals(-code).name}"
        return f"died by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"

    def boot(self, config: EngineConfig, faults: tuple[str, ...]) -> Connection:
        """Ask for a configuration process; returns our end of its job channel, whose first message is `Ready`."""
        if self._closed:
            raise EngineError("this engine is closed")
        if self._process.poll() is not None:
            if not self._death_told:
                raise self._lost()
            self._control.close()
            self._start()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [encode(Boot(config, faults))], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self._lost(f"is gone ({error})") from None
        return Connection(ours.detach())

    def _lost(self, otherwise: str = "") -> ProcessLost:
        return ProcessLost(f"the process that has imported SGLang {self.death() or otherwise}\n{self.log_tail()}")

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that SGLang's processes printed; none once it is closed."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 16384, max(0, size - 16384)).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def end(self) -> None:
        """End the process, and with it every process that it started."""
        self._control.close()
        self._death_told = True
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process for good. Idempotent."""
        if not self._closed:
            self._closed = True
            self.end()
            self._log.close()


_KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit statuses of a process that a user or the kernel has ended."""
