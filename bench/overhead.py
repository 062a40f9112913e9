"""The cost of checking: a run with everything on against a run with nothing on, same script, same process.

    python bench/overhead.py [--rounds 7]

Prints milliseconds of CPU time per step for the bare scheduler (hook only), with view and trace, with the counters of
what is reached as well, and with each invariant, each as the minimum over alternating rounds, and the ratio to the bare
step; then the cost of isolation per script (fork, result, reap). Quote ratios within one run: the machine's speed
drifts.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sr_fuzz.cpu import standins
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

# Six running requests of some forty tokens over shared prefixes: what a decode step of the default set looks like.
CONFIG = EngineConfig()
SCRIPT = Script(
    CONFIG, (*(StartReq(f"r{i}", Prompt(i % 3, 20 + i, 3), 30, ignore_eos=True) for i in range(12)), Step(200))
)


class _Bare:
    """An observer that does nothing."""

    def begin_step(self, step: int) -> None: ...

    def end_step(self, step: int) -> None:
        self.steps = step

    def on_run_batch(self, batch: object) -> None: ...


def main(rounds: Annotated[int, typer.Option(min=1, help="Measurements of each; the minimum counts.")] = 7) -> None:
    standins.install()
    from sr_fuzz.invariants import NAMES

    from sr_fuzz.engine.boot import boot

    booted = boot(CONFIG)
    subjects: dict[str, tuple[str, ...] | None] = {n: (n,) for n in NAMES}
    subjects = {"view, trace, reach": (), **subjects, "everything": None}
    best: dict[str, float] = {}
    for _ in range(rounds):
        measured = [("bare", _bare(booted)), ("view and trace", _checked(booted, (), counting=False))]
        measured += [(name, _checked(booted, wanted)) for name, wanted in subjects.items()]
        measured += [("everything, not counted", _checked(booted, None, counting=False))]
        for name, ms in measured:
            best[name] = min(ms, best.get(name, ms))
    table = Table("what", "ms/step", "over bare", title=f"{rounds} rounds, minimum")
    for name, ms in best.items():
        table.add_row(name, f"{ms:.3f}", f"{ms / best['bare'] - 1:+.2f}")
    Console().print(table)
    _isolation(rounds)


class _NoReach:
    """Counts nothing."""

    counts: dict[str, int] = {}

    def __getattr__(self, name: str):
        return lambda *args, **options: None


def _bare(booted) -> float:
    from sr_fuzz.engine.player import Player
    from sr_fuzz.engine.process_messages import Run
    from sr_fuzz.runtime.hook import ScriptEnded

    player = Player(booted, Run(SCRIPT, ()))
    observer = _Bare()

    def starts():
        from sr_fuzz.play.interpreter import Interpreter

        for action in SCRIPT.actions[:-1]:
            Interpreter(SCRIPT, player.context, player.view, player.monitor)._start_req(action)
        for _ in range(200):
            yield

    started = time.process_time()
    booted.hook.begin(starts(), observer=observer, proxy=booted.proxy)
    try:
        booted.scheduler.run_event_loop()
    except ScriptEnded:
        pass
    return _finish(booted, started, observer.steps)


def _checked(booted, wanted, *, counting: bool = True) -> float:
    from sr_fuzz.engine.player import Player
    from sr_fuzz.engine.process_messages import Run
    from sr_fuzz.runtime.hook import ScriptEnded

    player = Player(booted, Run(SCRIPT, wanted))
    if not counting:
        player.monitor.reach = _NoReach()
    started = time.process_time()
    booted.hook.begin(player.generator(), observer=player.monitor, proxy=booted.proxy)
    try:
        booted.scheduler.run_event_loop()
    except ScriptEnded:
        player.done()
    return _finish(booted, started, player.monitor.steps)


def _finish(booted, started: float, steps: int) -> float:
    ms = (time.process_time() - started) * 1000 / steps
    booted.recorder.clear()
    booted.scheduler.flush_cache()
    return ms


def _isolation(rounds: int) -> None:
    from sr_fuzz.engine.local.engine import LocalEngine

    with LocalEngine() as engine:
        short = Script(CONFIG, (Step(1),))
        engine.run(short)
        costs = []
        for _ in range(max(20, rounds)):
            started = time.perf_counter()
            outcome = engine.run(short)
            costs.append((time.perf_counter() - started - outcome.wall_s) * 1000)
    costs.sort()
    Console().print(f"isolation: {costs[len(costs) // 2]:.1f} ms a script (median of {len(costs)}), beside its own run")


if __name__ == "__main__":
    typer.run(main)
