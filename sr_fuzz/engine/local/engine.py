"""The local engine: it runs scripts on a real scheduler in child processes, without HTTP.

A zygote imports SGLang once; a configuration process boots a scheduler once; each script runs in a child that is forked
from the configuration process, so a crash, a hang or a leak ends with the child. Rejected alternatives: a fresh process
per script (10 s of import each), and one scheduler that is reset between scripts (a leak of one script becomes the
finding of the next).

Processes are started from the thread that calls `run` first, and end with that thread (see
`sr_fuzz.engine.parent_death`): use an engine from the main thread.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from sr_fuzz.engine.contract import Isolation
from sr_fuzz.engine.parallel_ranks import refuse_ranks
from sr_fuzz.engine.process_messages import Alive, Boot, Done, Execute, Failed, Ready, Run, decode_reply, encode
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script, validate
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, NotPlayed
from sr_fuzz.sglang_api.sources import tree_on

# The import takes 6 to 15 s on an idle machine; a busy one may need several times that.
_IMPORT_LIMIT_S = 180.0
# A boot takes 1 to 2 s.
_BOOT_LIMIT_S = 90.0
# On a machine with up to this many runnable processes per processor, a script is still not reported as a hang.
_BUSIEST = 20
# In addition to a script's own limit: time for dumping the stack, killing and reporting.
_REPLY_SLACK_S = 15.0
# More than the number of configurations in the largest set; otherwise they would replace each other, and each script
# would wait a second for a boot. A booted configuration takes some 45 MB in addition to the memory that it shares with
# the zygote, and no CPU time.
MAX_CONFIGS = 100


class Zygote:
    """The process that has imported SGLang. It is shared by engines that differ in their faults only."""

    def __init__(self, sys_path: Sequence[str] = ()) -> None:
        self._log = tempfile.TemporaryFile(mode="w+b")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = dict(os.environ)
        self.sys_path = tuple(sys_path)
        paths = [*sys_path, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
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
        self._control = ours
        try:
            self.sglang_version = self._await_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _await_ready(self) -> str:
        self._control.settimeout(_IMPORT_LIMIT_S)
        try:
            data = self._control.recv(65536)
        except TimeoutError:
            raise EngineError(f"SGLang was not imported within {_IMPORT_LIMIT_S:g} s\n{self.log_tail()}") from None
        self._control.settimeout(None)
        if not data:
            raise EngineError(f"the process that imports SGLang died\n{self.log_tail()}")
        reply = decode_reply(data)
        if isinstance(reply, Failed):
            raise EngineError(reply.message)
        assert isinstance(reply, Ready)
        return reply.sglang_version

    def boot(self, config: EngineConfig, faults: tuple[str, ...]) -> Connection:
        """Ask for a configuration process; returns our end of its job channel, whose first message is `Ready`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [encode(Boot(config, faults))], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise EngineError(f"the zygote process is gone ({error})\n{self.log_tail()}") from None
        return Connection(ours.detach())

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that SGLang's processes printed; none once it is closed."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 16384, max(0, size - 16384)).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """End the zygote, and with it every process that it started. Idempotent."""
        self._control.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._log.close()


class LocalEngine:
    """Runs scripts; a context manager. It boots configurations when they are first used, and keeps them."""

    isolation: Isolation = "fresh"

    def __init__(
        self,
        *,
        faults: Sequence[str] = (),
        limit_s: float = 20.0,
        sys_path: Sequence[str] = (),
        zygote: Zygote | None = None,
    ) -> None:
        """``faults``: import paths of context managers. ``limit_s``: longest time of one step of a script, in
        seconds, and of a whole script function.

        Time in which it waited for a processor is not counted. ``sys_path``: folders that faults and script
        functions are imported from. ``zygote``: a zygote to share.
        """
        self.faults = tuple(faults)
        self._limit_s = limit_s
        self._sys_path = tuple(sys_path)
        self._zygote = zygote
        self._owns_zygote = zygote is None
        self._configs: OrderedDict[EngineConfig, Connection] = OrderedDict()
        self._kept = MAX_CONFIGS
        self._closed = False
        self._restarts = 0
        """Restarts since a run has last succeeded."""

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def zygote(self) -> Zygote:
        if self._closed:
            raise EngineError("this engine is closed")
        if self._zygote is None:
            self._zygote = Zygote(self._sys_path)
        return self._zygote

    @property
    def sglang_version(self) -> str:
        """Version of the SGLang under test; starts the engine if needed."""
        return self.zygote.sglang_version

    @property
    def sglang_tree(self) -> str | None:
        return tree_on(self._zygote.sys_path if self._zygote is not None else self._sys_path)

    def restart(self) -> None:
        """End every process of this engine; the next run starts others.

        To import SGLang again takes ten seconds, so a zygote that is alive is kept at first. It is replaced when two
        restarts have not helped. A zygote that is shared belongs to another engine.
        """
        self._close_all_but(0)
        if self._owns_zygote and self._zygote is not None and (self._restarts >= 2 or not self._zygote.is_alive):
            self._zygote.close()
            self._zygote = None
        self._restarts += 1

    def with_faults(self, *faults: str) -> LocalEngine:
        """Return a second engine on the same zygote, with other faults. Close it before this one."""
        return LocalEngine(faults=faults, limit_s=self._limit_s, zygote=self.zygote)

    def fresh(self) -> LocalEngine:
        return self

    def refuse(self, config: EngineConfig) -> None:
        refuse_ranks(config)

    def start(self, config: EngineConfig) -> None:
        self.refuse(config)
        self._channel(config)

    def keep(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"keep: an engine keeps at least one configuration, got {n}")
        self._kept = n
        self._close_all_but(n)

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        """Play a script in a fresh child.

        A failure of SGLang never raises; `EngineError` is raised when the script cannot run.

        ``invariants``: names or families to check; None for all. Raises `ScriptError` for an invalid script.
        """
        validate(script)
        wanted = tuple(invariants) if invariants is not None else None
        job = Run(script, wanted, limit_s or self._limit_s)
        return self._submit(script.config, job).outcome

    def execute(
        self,
        path: str,
        *,
        config: EngineConfig,
        args: Sequence[Any] = (),
        invariants: Sequence[str] | None = None,
        limit_s: float | None = None,
    ) -> Outcome:
        """Run a script function, ``module:function``, on a context, as SGLang's scripted runtime does.

        Raises ``AssertionError`` with the function's traceback when the function raises any exception.
        """
        wanted = tuple(invariants) if invariants is not None else None
        done = self._submit(config, Execute(path, tuple(args), wanted, limit_s or self._limit_s))
        if done.failure:
            raise AssertionError(f"script function {path} failed:\n{done.failure}")
        return done.outcome

    def close(self) -> None:
        """End every process of this engine. Idempotent."""
        self._closed = True
        self._close_all_but(0)
        if self._owns_zygote and self._zygote is not None:
            self._zygote.close()

    def _submit(self, config: EngineConfig, job: Run | Execute) -> Done:
        self.refuse(config)
        channel = self._channel(config)
        try:
            channel.send_bytes(encode(job))
            reply = self._receive(channel, _BUSIEST * job.limit_s + _REPLY_SLACK_S, "a job")
        except EngineError:
            self._drop(config)
            raise
        except OSError as error:
            self._drop(config)
            raise EngineError(f"the configuration process is gone ({error})\n{self.zygote.log_tail()}") from None
        if isinstance(reply, Failed):
            raise NotPlayed(f"{reply.message}\n{reply.detail}".rstrip())
        assert isinstance(reply, Done)
        self._restarts = 0
        return reply

    def _channel(self, config: EngineConfig) -> Connection:
        channel = self._configs.get(config)
        if channel is not None:
            self._configs.move_to_end(config)
            return channel
        self._close_all_but(self._kept - 1)
        channel = self.zygote.boot(config, self.faults)
        try:
            reply = self._receive(channel, _BOOT_LIMIT_S, "booting")
        except BaseException:
            channel.close()
            raise
        if isinstance(reply, Failed):
            channel.close()
            raise ConfigNotBooted(f"{reply.message}\n{reply.detail}".rstrip())
        self._configs[config] = channel
        return channel

    def _close_all_but(self, n: int) -> None:
        while len(self._configs) > n:
            self._configs.popitem(last=False)[1].close()

    def _drop(self, config: EngineConfig) -> None:
        self._configs.pop(config).close()

    def _receive(self, channel: Connection, limit_s: float, what: str) -> Ready | Failed | Done:
        reply: Ready | Failed | Done | Alive = Alive()
        while isinstance(reply, Alive):
            if not channel.poll(limit_s):
                raise EngineError(f"no answer to {what} within {limit_s:g} s\n{self.zygote.log_tail()}")
            try:
                reply = decode_reply(channel.recv_bytes())
            except EOFError:
                raise EngineError(f"the configuration process died at {what}\n{self.zygote.log_tail()}") from None
        return reply
