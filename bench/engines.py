"""Plays the same scripts on the local engine, live schedulers, the server engine, and SGLang's own scripted runtime.

Each engine plays them through the public API of the scripted runtime (`sr_fuzz.engine.upstream.script_player`),
start-up not counted. Prints whether all engines saw the same forward modes and batches step by step and the same
outputs, and scripts per second. Usage: ``python -m bench.engines [--scripts 40] [--seed 0]``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.engine.settings import engine_kwargs
from sr_fuzz.engine.upstream.runner import run_file
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import (
    Abort,
    Action,
    Continue,
    EngineConfig,
    FlushCache,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
    StepUntil,
    to_json,
)

CONFIG = EngineConfig()
PLAY = "sr_fuzz.engine.upstream.script_player:play"

_TEST_FILE = """
import json, time, unittest
from sglang.test.scripted_runtime.test_case import ScriptedTestCase
from sr_fuzz.engine.upstream.script_player import play

SCRIPTS = json.loads({scripts!r})

class TestEngines(ScriptedTestCase):
    ENGINE_KWARGS = {kwargs!r}

    def test_all(self):
        times = []
        for number, script in enumerate(SCRIPTS):
            started = time.monotonic()
            self.server.execute_script(play, args=(script, "{folder}/%d.json" % number))
            times.append(time.monotonic() - started)
        open("{folder}/times", "w").write(json.dumps(times))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scripts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scripts = [to_json(script).decode() for script in make_scripts(arguments.scripts, arguments.seed)]
    results: dict[str, tuple[list[Any], list[float]]] = {}
    for name, measure in _ENGINES.items():
        with tempfile.TemporaryDirectory(prefix="sr-fuzz-") as folder:
            results[name] = measure(scripts, Path(folder))
    same = _compare({name: records for name, (records, _) in results.items()})
    slowest = sum(results["SGLang's own"][1])
    print(f"{len(scripts)} scripts, {sum(len(r['steps']) for r in results['local'][0])} steps each way")
    for name, (_, times) in results.items():
        total = sum(times)
        print(f"{name:<28} {len(times) / total:7.1f} scripts/s  {slowest / total:6.1f} times SGLang's own")
    return 0 if same else 1


def make_scripts(count: int, seed: int) -> list[Script]:
    """Scripts that SGLang's public API can express, with chunks, shared prefixes and pauses to give the scheduler
    work."""
    source = random.Random(seed)
    return [Script(CONFIG, tuple(_actions(source))) for _ in range(count)]


def _actions(source: random.Random) -> list[Action]:
    actions: list[Action] = []
    names = [f"r{number}" for number in range(source.randint(2, 5))]
    for name in names:
        prompt = Prompt(source.randrange(3), source.randint(3, 60), uniform=True)
        actions += [StartReq(name, prompt, source.randint(1, 12)), Step(source.randint(1, 4))]
    stage = source.choice(["first_chunk", "first_decode", "mid_decode"])
    pause = Pause(source.choice(["retract", "in_place"]))
    actions += [StepUntil(names[-1], stage), pause, Step(source.randint(1, 4)), Continue(), Step(2)]
    if source.random() < 0.5:
        actions += [Abort(names[-1]), Step(2)]
    if source.random() < 0.3:
        actions += [FlushCache(), Step(2)]
    return actions


# -- the engines -----------------------------------------------------------------------------------------------


def _timed(scripts: list[str], folder: Path, execute: Callable[[list[str]], Outcome]) -> tuple[list[Any], list[float]]:
    times = []
    for number, script in enumerate(scripts):
        path = folder / f"{number}.json"
        started = time.monotonic()
        outcome = execute([script, str(path)])
        times.append(time.monotonic() - started)
        if not outcome.ok:
            raise SystemExit(f"script {number} broke something:\n{outcome.report()}\n{script}")
    return _records(folder, len(scripts)), times


def _records(folder: Path, count: int) -> list[Any]:
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(count)]


def _ours(make: Callable[[], Any], invariants: tuple[str, ...] | None) -> Callable[[list[str], Path], Any]:
    def measure(scripts: list[str], folder: Path) -> tuple[list[Any], list[float]]:
        with make() as engine:

            def execute(args: list[str]) -> Outcome:
                return engine.execute(PLAY, config=CONFIG, args=args, invariants=invariants)

            execute([scripts[0], str(folder / "first.json")])  # starts it
            return _timed(scripts, folder, execute)

    return measure


def _sglangs(scripts: list[str], folder: Path) -> tuple[list[Any], list[float]]:
    test = folder / "test_engines.py"
    kwargs = engine_kwargs(CONFIG)
    test.write_text(_TEST_FILE.format(scripts=json.dumps(scripts), kwargs=kwargs, folder=folder))
    ran = run_file(test, limit_s=900)
    if not ran.passed:
        raise SystemExit(f"SGLang's own runtime: {ran.summary}\n{ran.output[-4000:]}")
    return _records(folder, len(scripts)), json.loads((folder / "times").read_text())


_ENGINES: dict[str, Callable[[list[str], Path], Any]] = {
    "local": _ours(LocalEngine, None),
    "local, no invariants": _ours(LocalEngine, ()),
    "persistent": _ours(lambda: PersistentEngine(device="cpu"), None),
    "persistent, no invariants": _ours(lambda: PersistentEngine(device="cpu"), ()),
    "server": _ours(lambda: ServerEngine(device="cpu"), None),
    "server, no invariants": _ours(lambda: ServerEngine(device="cpu"), ()),
    "SGLang's own": _sglangs,
}


def _compare(records: dict[str, list[Any]]) -> bool:
    """Whether all engines saw the same; prints the first difference of each engine from the local one."""
    same = True
    for name, theirs in records.items():
        pairs = enumerate(zip(records["local"], theirs, strict=True))
        different = [number for number, (ours, other) in pairs if ours != other]
        print(f"{name:<28} {len(theirs) - len(different)} of {len(theirs)} scripts step by step as on the local engine")
        same = same and not different
        if different:
            ours, other = records["local"][different[0]], theirs[different[0]]
            steps = zip(ours["steps"], other["steps"])
            at = next((i for i, (a, b) in enumerate(steps) if a != b), min(len(ours["steps"]), len(other["steps"])))
            print(f"  script {different[0]}, from step {at + 1}:")
            print(f"    {ours['steps'][at : at + 2]}")
            print(f"    {other['steps'][at : at + 2]}")
            print(f"  outputs: {ours['outputs'] == other['outputs']}")
    return same


if __name__ == "__main__":
    sys.exit(main())
