"""Engines on live schedulers: one process plays many scripts, one after the other, and is emptied in between.

This is faster than a fresh process for each script, and the only way where a process cannot be forked (CUDA) or takes
half a minute to start (the HTTP server). The price is that earlier scripts may cause a violation. So a violation in a
scheduler that has played other scripts is played again alone, in a fresh scheduler; only if it shows there too is it a
violation of the script. Otherwise the outcome names the scripts that were played before.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

from msgspec.structs import replace

from sr_fuzz.engine.contract import Engine, Isolation
from sr_fuzz.engine.live.fresh_runs import FreshRuns
from sr_fuzz.engine.live.holder import LiveHolder
from sr_fuzz.engine.live.scheduler import LiveScheduler, encode_settings, process_environment
from sr_fuzz.engine.live.scheduler_main import Order
from sr_fuzz.engine.parallel_ranks import refuse_ranks
from sr_fuzz.engine.process_messages import Execute, Run
from sr_fuzz.engine.step_limit import step_limit_s
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import EngineConfig, Script, validate
from sr_fuzz.script.text import text
from sr_fuzz.sglang_api.sources import tree_on

# One process imports SGLang (6 to 15 s) and boots the scheduler; a busy machine may need several times that.
_START_LIMIT_S = 300.0

# Number of earlier scripts in a note: the latest ones are the most likely cause, and a report should stay readable.
_EARLIER_SCRIPTS = 5


class LiveEngine:
    """Base of the engines on live schedulers, one scheduler for each engine configuration; a context manager."""

    isolation: Isolation = "shared"

    _kept = 4
    """Number of schedulers that are kept running."""

    def __init__(
        self,
        *,
        faults: Sequence[str] = (),
        limit_s: float = 20.0,
        sys_path: Sequence[str] = (),
        device: str | None = None,
        model: str | None = None,
    ) -> None:
        """``faults``: import paths of context managers. ``limit_s``: wall-clock limit of a step, in seconds.

        ``sys_path``: folders that faults and script functions are imported from; by default the current one.
        ``device``: ``cpu`` or ``cuda``; by default the one that is available. ``model``: path or name; by default the
        oracle model.
        """
        self.faults = tuple(faults)
        self.limit_s = limit_s
        self.sys_path = tuple(map(str, sys_path)) or (os.getcwd(),)
        self.device = device or default_device()
        self.model = model
        self._holders: OrderedDict[EngineConfig, LiveHolder] = OrderedDict()
        self._alone: set[str] = set()
        """Signatures of violations that were seen in a scheduler that had played nothing else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments for another engine like this one, without its faults."""
        return {"limit_s": self.limit_s, "sys_path": self.sys_path, "device": self.device, "model": self.model}

    @property
    def sglang_tree(self) -> str | None:
        return tree_on(self.sys_path)

    @property
    def sglang_version(self) -> str:
        """Version of the SGLang under test; starts a scheduler if none runs."""
        config = next(reversed(self._holders), EngineConfig())
        return self.holder(config).ready().sglang_version

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        """Play a script. A failure of SGLang never raises; `EngineError` is raised when the script cannot run.

        ``invariants``: names or families to check; None for all. Raises `ScriptError` for an invalid script.
        """
        validate(script)
        self.refuse(script.config)
        job = Run(script, names(invariants), limit_s or step_limit_s(script, self.limit_s))
        holder = self.holder(script.config)
        outcome = holder.submit(job).outcome
        if outcome.violation is None:
            return outcome
        found = signature(outcome.violation, script.config)
        earlier = holder.played[:-1]
        if not earlier:
            self._alone.add(found)
        if found in self._alone:
            return outcome
        return self._alone_again(holder, job, outcome, found, earlier)

    def execute(
        self,
        path: str,
        *,
        config: EngineConfig,
        args: Sequence[Any] = (),
        invariants: Sequence[str] | None = None,
        limit_s: float | None = None,
    ) -> Outcome:
        """Run a script function, ``module:function``; see `LocalEngine.execute`."""
        self.refuse(config)
        done = self.holder(config).submit(Execute(path, tuple(args), names(invariants), limit_s or self.limit_s))
        if done.failure:
            raise AssertionError(f"script function {path} failed:\n{done.failure}")
        return done.outcome

    def holder(self, config: EngineConfig) -> LiveHolder:
        """Return the holder of the scheduler of a configuration; others are shut down where too many run."""
        found = self._holders.get(config)
        if found is not None:
            self._holders.move_to_end(config)
            return found
        self._close_all_but(self._kept - 1)
        self._holders[config] = self._hold(config)
        return self._holders[config]

    def refuse(self, config: EngineConfig) -> None:
        raise NotImplementedError

    def start(self, config: EngineConfig) -> None:
        self.refuse(config)
        self.holder(config).ready()

    def keep(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"keep: an engine keeps at least one configuration, got {n}")
        self._kept = n
        self._close_all_but(n)

    def fresh(self) -> FreshRuns:
        return FreshRuns(self, self._start_anew)

    def restart(self) -> None:
        """End every scheduler; the next run starts another one."""
        self._close_all_but(0)

    def with_faults(self, *faults: str) -> Engine:
        raise NotImplementedError

    def close(self) -> None:
        """End every process. Idempotent."""
        self._close_all_but(0)

    def _hold(self, config: EngineConfig) -> LiveHolder:
        raise NotImplementedError

    def _close_all_but(self, n: int) -> None:
        while len(self._holders) > n:
            self._holders.popitem(last=False)[1].close()

    def _start_anew(self, config: EngineConfig) -> None:
        holder = self._holders.get(config)
        if holder is not None and holder.played:
            holder.replace()

    def _alone_again(
        self, holder: LiveHolder, job: Run, first: Outcome, found: str, earlier: Sequence[Run | Execute]
    ) -> Outcome:
        holder.replace()
        alone = holder.submit(job).outcome
        if alone.violation is not None:
            self._alone.add(signature(alone.violation, job.script.config))
            return alone
        before = [text(other.script) if isinstance(other, Run) else other.path for other in earlier]
        notes = [f"seen once ({found}), after {len(before)} other scripts; not alone in a fresh scheduler"]
        notes += [f"before it: {line}" for line in before[-_EARLIER_SCRIPTS:]]
        return replace(first, notes=(*first.notes, *notes))


class PersistentEngine(LiveEngine):
    """An engine of schedulers without HTTP, each in its own process, for devices that cannot be forked."""

    def with_faults(self, *faults: str) -> PersistentEngine:
        """Return a second engine with other faults."""
        return PersistentEngine(faults=faults, **self.settings)

    def refuse(self, config: EngineConfig) -> None:
        refuse_ranks(config)

    def _hold(self, config: EngineConfig) -> LiveHolder:
        order = Order(config, self.device, self.model)

        def launch() -> LiveScheduler:
            return LiveScheduler(
                "sr_fuzz.engine.live.scheduler_main",
                settings=encode_settings(order),
                environment=process_environment(self.device, faults=self.faults, sys_path=self.sys_path),
                start_limit_s=_START_LIMIT_S,
            )

        return LiveHolder(launch)


def default_device() -> str:
    """Return ``cuda`` if torch finds a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def names(invariants: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names as a tuple, the form in which messages carry them."""
    return tuple(invariants) if invariants is not None else None
