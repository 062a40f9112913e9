"""The server engine: SGLang's full HTTP server, with our hook in its scheduler process.

`ScriptedHttpServer` is one server, started with keyword arguments of SGLang's ``ServerArgs``, as in SGLang's own
scripted runtime. `ServerEngine` plays scripts as the local engine does, with one server for each engine configuration.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sr_fuzz.engine.live.holder import LiveHolder
from sr_fuzz.engine.live.persistent import LiveEngine, default_device, names
from sr_fuzz.engine.live.ports import HOST, reserve
from sr_fuzz.engine.live.scheduler import LiveScheduler, encode_settings, process_environment
from sr_fuzz.engine.process_messages import Execute, Run
from sr_fuzz.engine.settings import engine_kwargs
from sr_fuzz.engine.step_limit import step_limit_s
from sr_fuzz.oracle.settings import MODEL_PATH, oracle_settings
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script, validate
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api import ranks
from sr_fuzz.sglang_api.server_args import BY_ENVIRONMENT, device_settings

# SGLang is imported (6 to 15 s on an idle machine), by each process if they are spawned, and boots.
START_LIMIT_S = 300.0
# A script of some hundred steps takes tenths of a second; a busy machine may need many times that.
RUN_LIMIT_S = 120.0

# Answered by the HTTP process alone. A health check would send a request through the scheduler, which waits for
# scripts.
_READY_PATH = "/model_info"

# Room for some of the ballast requests of SGLang's tests, which are clipped to the context; small because invariants
# read every page.
_CPU_POOL_TOKENS = 16384


_DEFAULTS = EngineConfig()


class ScriptedHttpServer:
    """SGLang's HTTP server, driven one scheduler step at a time. A context manager.

    A server that a script broke is replaced automatically before the next script.
    """

    def __init__(
        self,
        engine_kwargs: dict[str, Any],
        *,
        faults: Sequence[str] = (),
        sys_path: Sequence[str] = (),
        run_timeout_s: float = RUN_LIMIT_S,
    ) -> None:
        """Internal; use `start`."""
        self._arguments = with_defaults(engine_kwargs)
        self._has_own_port = "port" in engine_kwargs
        self._faults = tuple(faults)
        self._sys_path = tuple(sys_path) or (os.getcwd(),)
        self._run_timeout_s = run_timeout_s
        self.holder = LiveHolder(self._launch)

    @classmethod
    def start(
        cls,
        *,
        faults: Sequence[str] = (),
        sys_path: Sequence[str] = (),
        run_timeout_s: float = RUN_LIMIT_S,
        **engine_kwargs: Any,
    ) -> ScriptedHttpServer:
        """Start a server with the keyword arguments of SGLang's ``ServerArgs``.

        Arguments that the oracle model, or a machine without a GPU, needs get a default. ``faults``: import paths of
        seeded faults. ``sys_path``: folders that script functions and faults are imported from; by default the current
        one. Raises `EngineError` when the server does not start.
        """
        server = cls(engine_kwargs, faults=faults, sys_path=sys_path, run_timeout_s=run_timeout_s)
        server.holder.ready()
        return server

    def __enter__(self) -> ScriptedHttpServer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.shutdown()

    @property
    def sglang_version(self) -> str:
        return self.holder.ready().sglang_version

    @property
    def base_url(self) -> str:
        """The URL of the server; the port changes when the server is replaced."""
        return f"http://{HOST}:{self._arguments['port']}"

    @property
    def scheduler_pid(self) -> int:
        """Process id of the scheduler that plays."""
        return self.holder.ready().pid

    @property
    def is_dead(self) -> bool:
        """Whether it can play no further scripts; the next script then starts another server."""
        return self.holder.is_dead

    @property
    def folder(self) -> Path:
        """The private folder of its processes; it is removed when they end."""
        return self.holder.ready().folder

    def execute_script(
        self,
        script_fn: Callable | str,
        *,
        args: Sequence[Any] = (),
        timeout_s: float | None = None,
        invariants: Sequence[str] | None = None,
    ) -> None:
        """Run a script function in the scheduler process, which imports it by module and name.

        ``args`` are plain data. Raises ``AssertionError`` with the function's traceback when it raises, or with a
        report when an invariant is violated or SGLang fails; ``TimeoutError`` when it has not ended after ``timeout_s``
        seconds; `EngineError` when it could not be run.
        """
        outcome = self.outcome_of(script_fn, args=args, timeout_s=timeout_s, invariants=invariants)
        if outcome.violation is not None and outcome.violation.invariant == "hang":
            raise TimeoutError(outcome.report())
        if outcome.violation is not None:
            raise AssertionError(outcome.report())

    def outcome_of(
        self,
        script_fn: Callable | str,
        *,
        args: Sequence[Any] = (),
        timeout_s: float | None = None,
        invariants: Sequence[str] | None = None,
    ) -> Outcome:
        """Like `execute_script`, but a violation is in the returned outcome."""
        path = script_fn if isinstance(script_fn, str) else f"{script_fn.__module__}:{script_fn.__qualname__}"
        if path.startswith("__main__:"):
            raise EngineError(f"script function {path}: the scheduler process cannot import it; put it into a module")
        job = Execute(path, tuple(args), names(invariants), timeout_s or self._run_timeout_s)
        done = self.holder.submit(job)
        if done.failure:
            raise AssertionError(f"script function {path} failed:\n{done.failure}")
        return done.outcome

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        """Play a script. Its configuration is *ignored*: the server keeps the one that it was started with."""
        validate(script)
        limit_s = limit_s or step_limit_s(script, self._run_timeout_s)
        return self.holder.submit(Run(script, names(invariants), limit_s)).outcome

    def shutdown(self) -> None:
        """End the server, with all its processes, files and shared memory. Idempotent."""
        self.holder.close()

    def _launch(self) -> LiveScheduler:
        # If no port was given, each start uses another one, since the kernel may still hold the old one.
        with reserve(self._arguments["port"] if self._has_own_port else None) as port:
            self._arguments["port"] = port.getsockname()[1]
            environment = process_environment(self._arguments["device"], faults=self._faults, sys_path=self._sys_path)
            return LiveScheduler(
                "sr_fuzz.engine.live.server_main",
                settings=encode_settings(self._arguments),
                environment=environment | ranks.environment(self._arguments),
                start_limit_s=START_LIMIT_S,
                ready=self._answers,
            )

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.base_url + _READY_PATH, timeout=2.0).close()
        except urllib.error.HTTPError:
            return True  # any HTTP response means that the server is up
        except OSError:
            return False
        return True


class ServerEngine(LiveEngine):
    """Plays scripts on HTTP servers; a context manager that is used like the local engine.

    One server runs at a time, or as many as `keep` says.
    """

    _kept = 1  # a server has three processes, and takes 2 GB if each imports SGLang

    def __init__(
        self,
        *,
        faults: Sequence[str] = (),
        limit_s: float = RUN_LIMIT_S,
        sys_path: Sequence[str] = (),
        device: str | None = None,
        model: str | None = None,
        **engine_kwargs: Any,
    ) -> None:
        """``engine_kwargs`` are passed to SGLang's ``ServerArgs`` in addition to a script's configuration."""
        super().__init__(faults=faults, limit_s=limit_s, sys_path=sys_path, device=device, model=model)
        self._engine_kwargs = engine_kwargs
        self._servers: dict[EngineConfig, ScriptedHttpServer] = {}

    def with_faults(self, *faults: str) -> ServerEngine:
        """A second engine with other faults."""
        return ServerEngine(faults=faults, **self.settings, **self._engine_kwargs)

    def refuse(self, config: EngineConfig) -> None:
        # SGLang would read environment variables in processes that live longer than one configuration. One half of a
        # disaggregated pair needs the server of the other half. Adapters would have to be files, with ids that the
        # tokenizer manager generates.
        names = [*BY_ENVIRONMENT, "disaggregation_mode", "enable_lora"]
        asked = [f"{name}={value}" for name in names if (value := getattr(config, name)) != getattr(_DEFAULTS, name)]
        if self.device == "cpu" and config.speculative_algorithm is not None:
            # Its stand-ins must be installed before SGLang reads its settings, and each of the server's processes reads
            # them by itself.
            asked.append(f"speculative_algorithm={config.speculative_algorithm} on a CPU")
        if asked:
            raise EngineError(f"{', '.join(asked)}: the server engine cannot; the local and the persistent one can")

    def server(self, config: EngineConfig) -> ScriptedHttpServer:
        """Return the server for a configuration; it is created if needed."""
        self.holder(config)
        return self._servers[config]

    def _hold(self, config: EngineConfig) -> LiveHolder:
        kwargs = engine_kwargs(config, device=self.device, model=self.model) | self._engine_kwargs
        server = ScriptedHttpServer(kwargs, faults=self.faults, sys_path=self.sys_path, run_timeout_s=self.limit_s)
        self._servers = {known: it for known, it in self._servers.items() if known in self._holders}
        self._servers[config] = server
        return server.holder


def with_defaults(engine_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return ``engine_kwargs`` with defaults for the arguments that the device and the oracle model need."""
    device = engine_kwargs.get("device") or default_device()
    oracle = engine_kwargs.get("model_path", str(MODEL_PATH)) == str(MODEL_PATH)
    defaults = {**(oracle_settings() if oracle else {}), **device_settings(device)}
    if oracle and engine_kwargs.get("pp_size", 1) > 1:
        # One layer for each pipeline stage; the oracle model has as many layers as this setting says.
        defaults["json_model_override_args"] = json.dumps({"num_hidden_layers": engine_kwargs["pp_size"]})
    if device == "cpu":
        # Otherwise SGLang would size the pool by the machine's memory.
        defaults["max_total_tokens"] = _CPU_POOL_TOKENS
    return {**defaults, **engine_kwargs, "host": HOST}
