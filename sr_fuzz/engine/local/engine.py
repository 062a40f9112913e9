"""The local engine: it runs scripts on a real scheduler in child processes, without HTTP.

A zygote imports SGLang once; a configuration process boots a scheduler once; each script runs in a child that is forked
from the configuration process, so a crash, a hang or a leak ends with the child. Rejected alternatives: a fresh process
per script (10 s of import each), and one scheduler that is reset between scripts (a leak of one script becomes the
finding of the next).

Processes are started from the thread that calls `run` first, and end with that thread (see
`sr_fuzz.lifetime.parent_death`): use an engine from the main thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from sr_fuzz.engine.contract import Isolation
from sr_fuzz.engine.local.zygote_client import Zygote
from sr_fuzz.engine.parallel_ranks import refuse_ranks
from sr_fuzz.engine.process_messages import Alive, Done, Execute, Failed, Lost, Ready, Run, decode_reply, encode
from sr_fuzz.engine.step_limit import step_limit_s
from sr_fuzz.lifetime.owned_folders import remove_leftovers
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script, validate
from sr_fuzz.script.errors import ConfigNotBooted, EngineError, NotPlayed, ProcessLost
from sr_fuzz.sglang_api.sources import tree_on

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
        self._started_by = 0
        """The zygote's number when the configurations were booted."""
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
        restarts have not helped.
        """
        self._close_all_but(0)
        if self._zygote is not None and self._restarts >= 2:
            self._zygote.end()
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
        job = Run(script, wanted, limit_s or step_limit_s(script, self._limit_s))
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
        except EOFError:
            raise self._lost(config, "died at a job") from None
        except OSError as error:
            raise self._lost(config, f"is gone ({error})") from None
        if isinstance(reply, Lost):
            raise ProcessLost(f"{reply.message}\n{reply.detail}".rstrip())
        if isinstance(reply, Failed):
            raise NotPlayed(f"{reply.message}\n{reply.detail}".rstrip())
        assert isinstance(reply, Done)
        self._restarts = 0
        return reply

    def _channel(self, config: EngineConfig) -> Connection:
        if self._started_by != self.zygote.number:
            self._close_all_but(0)  # those of an earlier zygote ended with it
        channel = self._configs.get(config)
        if channel is not None:
            self._configs.move_to_end(config)
            return channel
        self._close_all_but(self._kept - 1)
        channel = self.zygote.boot(config, self.faults)
        self._started_by = self.zygote.number
        self._configs[config] = channel
        try:
            reply = self._receive(channel, _BOOT_LIMIT_S, "booting")
        except (EOFError, OSError):
            raise self._lost(config, "died at booting") from None
        except BaseException:
            self._drop(config)
            raise
        if isinstance(reply, Failed):
            self._drop(config)
            raise ConfigNotBooted(f"{reply.message}\n{reply.detail}".rstrip())
        return channel

    def _lost(self, config: EngineConfig, what: str) -> ProcessLost:
        """Forget what has ended with the configuration process.

        A booted one only forks and waits, so that it is no doing of SGLang; a crash of a boot shows again at the next.
        """
        remove_leftovers()  # it may have ended while it booted
        if (zygote := self.zygote.death()) is not None:
            self._close_all_but(0)
            return ProcessLost(f"the process that has imported SGLang {zygote}\n{self.zygote.log_tail()}")
        self._drop(config)
        return ProcessLost(f"the configuration process {what}\n{self.zygote.log_tail()}")

    def _close_all_but(self, n: int) -> None:
        while len(self._configs) > n:
            self._configs.popitem(last=False)[1].close()

    def _drop(self, config: EngineConfig) -> None:
        self._configs.pop(config).close()

    def _receive(self, channel: Connection, limit_s: float, what: str) -> Ready | Failed | Lost | Done:
        """Return the answer. Raises ``EOFError`` or ``OSError`` when the configuration process has ended."""
        reply: Ready | Failed | Lost | Done | Alive = Alive()
        while isinstance(reply, Alive):
            if not channel.poll(limit_s):
                raise EngineError(f"no answer to {what} within {limit_s:g} s\n{self.zygote.log_tail()}")
            reply = decode_reply(channel.recv_bytes())
        return reply
