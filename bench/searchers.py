"""How much faster two searchers are than one: scripts a second of nights with one and with two, in turn.

    python -m bench.searchers [--pairs 5] [--seconds 60] [--workers 2] [--config overlap-chunk16]

Of each night only the part counts in which all searchers play: from ten seconds after its first script to its end.
The ratio is that of the best nights, and beside it that of the medians. Another load on the machine spoils it: its mean
number of runnable processes is shown.
"""

from __future__ import annotations

import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sr_fuzz.campaign.event_codec import decode_line
from sr_fuzz.campaign.events import ScriptDone

WARM_UP_S = 10.0
"""The other searchers boot their configuration."""


def main(
    pairs: Annotated[int, typer.Option(help="Nights of each kind.")] = 5,
    seconds: Annotated[int, typer.Option(help="Length of a night.")] = 60,
    workers: Annotated[int, typer.Option(help="Searchers that are compared with one.")] = 2,
    config: Annotated[str, typer.Option(help="What they search.")] = "overlap-chunk16",
) -> None:
    """Print the scripts a second of each night, and the ratio."""
    rates: dict[int, list[float]] = {1: [], workers: []}
    for number in range(pairs):
        # The order changes, so that what drifts does not favour one of them.
        for count in (1, workers) if number % 2 == 0 else (workers, 1):
            rates[count].append(night(count, seconds, config, seed=number))
            print(f"{count} searching: {rates[count][-1]:.2f} scripts/s, load {os.getloadavg()[0]:.1f}", flush=True)
    best, middle = (measure(rates[workers]) / measure(rates[1]) for measure in (max, statistics.median))
    print(f"{workers} against 1, best of {pairs}: {best:.2f}; medians: {middle:.2f}")


def night(workers: int, seconds: int, config: str, seed: int) -> float:
    """Return the scripts a second of one night."""
    with tempfile.TemporaryDirectory(prefix="searchers-") as folder:
        log = Path(folder, "events")
        options = ["--time", f"{seconds}s", "--workers", str(workers), "--config", config, "--seed", str(seed)]
        quiet = ["--no-canary", "--no-history", "--store", str(Path(folder, "store")), "--log", str(log)]
        subprocess.run(
            [sys.executable, "-m", "sr_fuzz", "nightly", *options, *quiet], check=True, stdout=subprocess.DEVNULL
        )
        times = [
            datetime.datetime.fromisoformat(line.time).timestamp()
            for line in map(decode_line, log.read_bytes().splitlines())
            if isinstance(line.event, ScriptDone)
        ]
    counted = [when for when in times if when >= times[0] + WARM_UP_S]
    return (len(counted) - 1) / (counted[-1] - counted[0])


if __name__ == "__main__":
    typer.run(main)
