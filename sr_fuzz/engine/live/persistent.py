"""Engines over live schedulers: many scripts in one process, one after the other, emptied in between.

Faster than a fresh process for each script, and the only way where a process cannot be forked (CUDA) or costs half a
minute (the HTTP server). What is gained is paid for here: a violation that shows in a scheduler that has played other
scripts before is tried again alone, in a fresh one; only if it shows there too is it the script's own doing. If not,
the outcome says so, with the scripts that went before.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

from msgspec.structs import replace

from sr_fuzz.engine.contract import Engine, Isolation
from sr_fuzz.engine.live.fresh_runs import FreshRuns
from sr_fuzz.engine.live.scheduler import LiveHolder, LiveScheduler, encode_settings, process_environment
from sr_fuzz.engine.live.scheduler_main import Order
from sr_fuzz.engine.parallel_ranks import refuse_ranks
from sr_fuzz.engine.process_messages import Execute, Run
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import EngineConfig, Script, validate
from sr_fuzz.script.text import text
from sr_fuzz.sglang_api.sources import tree_on

# SGLang is imported by one process (6 to 15 s) and boots; a loaded machine may need several times that.
_START_LIMIT_S = 300.0

# Scripts that went before, in a note: the nearest ones are the likeliest to matter, and a report should stay readable.
_EARLIER_SCRIPTS = 5


class LiveEngine:
    """Base of the engines over live schedulers, one for each engine configuration; a context manager."""

    isolation: Isolation = "shared"

    _kept = 4
    """Schedulers that stay up."""

    def __init__(
        self,
        *,
        faults: Sequence[str] = (),
        limit_s: float = 20.0,
        sys_path: Sequence[str] = (),
        device: str | None = None,
        model: str | None = None,
    ) -> None:
        """``faults``: import paths of context managers. ``limit_s``: wall-clock limit of a script, in seconds.

        ``sys_path``: folders that faults and script functions are imported from, the current one by default.
        ``device``: ``cpu`` or ``cuda``, what there is by default. ``model``: path or name, the oracle model by default.
        """
        self.faults = tuple(faults)
        self.limit_s = limit_s
        self.sys_path = tuple(map(str, sys_path)) or (os.getcwd(),)
        self.device = device or default_device()
        self.model = model
        self._holders: OrderedDict[EngineConfig, LiveHolder] = OrderedDict()
        self._alone: set[str] = set()
        """Signatures that were seen in a scheduler that had played nothing else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What another engine like this one is made with, but for its faults."""
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
        """Play a script. Never raises for what SGLang does; `EngineError` when it cannot run.

        ``invariants``: names or families to check, None for all. Raises `ScriptError` for a script that is invalid.
        """
        validate(script)
        self.refuse(script.config)
        job = Run(script, names(invariants), limit_s or self.limit_s)
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
        """What holds the scheduler of a configuration; others are shut down where too many run."""
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
    """Schedulers without HTTP, in processes of their own: what the local engine is where nothing can be forked."""

    def with_faults(self, *faults: str) -> PersistentEngine:
        """A second engine with other faults."""
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
    """``cuda`` where torch sees a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def names(invariants: Sequence[str] | None) -> tuple[str, ...] | None:
    """As messages carry them."""
    return tuple(invariants) if invariants is not None else None
