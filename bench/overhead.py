"""What checking costs: a run with everything on against a run with nothing on, same script, same process.

    python bench/overhead.py [--rounds 7]

Prints milliseconds a step for the bare scheduler (hook only), with view and trace, and with each invariant, as minimum
over rounds that take turns, and the ratio over the bare step; then what isolation costs a script (fork, result, reap).
Ratios within one run are what to quote: the machine's speed drifts.
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

    def begin_turn(self, step: int) -> None: ...

    def end_turn(self, step: int) -> None:
        self.turns = step

    def on_run_batch(self, batch: object) -> None: ...


def main(rounds: Annotated[int, typer.Option(min=1, help="Measurements of each; the minimum counts.")] = 7) -> None:
    standins.install()
    from invariants import NAMES
    from sr_fuzz.engine.boot import boot

    booted = boot(CONFIG)
    subjects: dict[str, tuple[str, ...] | None] = {"view and trace": (), **{n: (n,) for n in NAMES}, "everything": None}
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, ms in [("bare", _bare(booted)), *((n, _checked(booted, wanted)) for n, wanted in subjects.items())]:
            best[name] = min(ms, best.get(name, ms))
    table = Table("what", "ms/step", "over bare", title=f"{rounds} rounds, minimum")
    for name, ms in best.items():
        table.add_row(name, f"{ms:.3f}", f"{ms / best['bare'] - 1:+.2f}")
    Console().print(table)
    _isolation(rounds)


def _bare(booted) -> float:
    from sr_fuzz.engine.child import Player
    from sr_fuzz.runtime.hook import ScriptEnded

    player = Player(booted, ())
    observer = _Bare()

    def starts():
        from sr_fuzz.interpreter import Interpreter

        for action in SCRIPT.actions[:-1]:
            Interpreter(SCRIPT, player.context, player.view, player.monitor)._start_req(action)
        for _ in range(200):
            yield

    started = time.perf_counter()
    booted.hook.begin(starts(), observer=observer, proxy=booted.proxy)
    try:
        booted.scheduler.run_event_loop()
    except ScriptEnded:
        pass
    return _finish(booted, started, observer.turns)


def _checked(booted, wanted) -> float:
    from sr_fuzz.engine.child import Player
    from sr_fuzz.interpreter import Interpreter

    player = Player(booted, wanted)
    interpreter = Interpreter(SCRIPT, player.context, player.view, player.monitor)
    started = time.perf_counter()
    player.run(interpreter.play(), script_hash="bench")
    return _finish(booted, started, player.monitor.turns)


def _finish(booted, started: float, turns: int) -> float:
    ms = (time.perf_counter() - started) * 1000 / turns
    booted.recorder.streams.clear()
    booted.scheduler.flush_cache()
    return ms


def _isolation(rounds: int) -> None:
    from sr_fuzz.engine.local import LocalEngine

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
