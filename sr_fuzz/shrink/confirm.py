"""Confirmation: how often a script shows its violation, each time in a fresh scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import signature
from sr_fuzz.script import Script

# If one run shows the violation with probability p, all five show it with p^5, which stays below 5 % as long as p <
# 0.55: so "5 of 5" means "in most runs" with 95 % confidence. A violation with p = 0.5 shows at least once in five runs
# with 1 - 0.5^5 = 97 %, so a flaky violation is rarely mistaken for one that is gone. Ten runs would raise the 0.55 to
# 0.74 and cost a second for each finding; a reader's decision would be the same.
CONFIRM_RUNS = 5


def confirm(
    script: Script,
    target_signature: str,
    engine: Engine,
    *,
    n: int = CONFIRM_RUNS,
    invariants: Sequence[str] | None = None,
    limit_s: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Run ``script`` ``n`` times; returns ``(k, runs)``, ``k`` being the runs with a violation of that signature.

    Once ``stop`` returns True no further run begins; at least one run is made. ``invariants`` and ``limit_s`` are those
    of `Engine.run`. Raises ``ValueError`` for an engine whose runs share a scheduler, and `EngineError` when a run is
    not possible.
    """
    if engine.isolation != "fresh":
        raise ValueError(f"isolation {engine.isolation!r}: to confirm, every run needs a fresh scheduler; see fresh()")
    if n < 1:
        raise ValueError(f"n: at least one run is needed, got {n}")
    k = runs = 0
    while runs < n and not (runs and stop()):
        violation = engine.run(script, invariants=invariants, limit_s=limit_s).violation
        runs += 1
        k += violation is not None and signature(violation, script.config) == target_signature
    return k, runs
