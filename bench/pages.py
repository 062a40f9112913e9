"""Steps per second by page size, in one run: paged allocation against single slots.

    python -m bench.pages [--sglang 0.5.20] [--rounds 5]

The same requests run on pools of 1024 tokens with pages of 1, 4, 16 and 64 tokens, which take turns; no invariant is
checked. Up to 0.5.21 pages are allocated by `sr_fuzz.cpu.kernels`, later by SGLang's own functions. Quote ratios within
one run.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step
from sr_fuzz.sglang_api.releases import release_folder

PAGE_SIZES = (1, 4, 16, 64)

# Eight rows, kept full by requests of some ninety tokens over shared prefixes: extends, and decodes that start new
# pages.
_ACTIONS = (*(StartReq(f"r{i}", Prompt(i % 3, 40 + i, 8), 50, ignore_eos=True) for i in range(24)), Step(250))


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each; the fastest counts.")] = 5,
    sglang: Annotated[str | None, typer.Option(help="Another release than the installed one.")] = None,
) -> None:
    """Measure steps per second at each page size."""
    release = [str(release_folder(sglang))] if sglang is not None else []
    scripts = {
        size: Script(
            EngineConfig(page_size=size, max_total_tokens=1024, max_running_requests=8, chunked_prefill_size=64),
            _ACTIONS,
        )
        for size in PAGE_SIZES
    }
    best: dict[int, float] = {}
    with LocalEngine(sys_path=[*release, os.getcwd()]) as engine:
        for _ in range(rounds):
            for size, script in scripts.items():
                # An empty tuple: no invariant is checked.
                outcome = engine.run(script, invariants=())
                if not outcome.ok:
                    raise typer.Exit(Console().print(outcome.report()) or 1)
                best[size] = max(outcome.steps / outcome.wall_s, best.get(size, 0.0))
        version = engine.sglang_version
    table = Table("page size", "steps/s", "against 1", title=f"SGLang {version}, {rounds} rounds, fastest")
    for size, rate in best.items():
        table.add_row(str(size), f"{rate:.0f}", f"{rate / best[1]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
