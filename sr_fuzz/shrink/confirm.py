"""Confirmation: how often does a script show its violation, each time in a fresh scheduler?"""

from __future__ import annotations

from sr_fuzz.outcome import signature
from sr_fuzz.script import Script
from sr_fuzz.shrink.minimise import Run

# If one run shows the violation with probability p, all five show it with p^5, which stays below 5 % as long as
# p < 0.55: so "5 of 5" says "in most runs" with 95 % confidence. A violation of p = 0.5 shows at least once in five
# with 1 - 0.5^5 = 97 %, so one that is merely flaky is rarely mistaken for one that is gone. Ten runs would raise the
# 0.55 to 0.74 and cost a second for each finding; a reader's decision would be the same.
CONFIRM_RUNS = 5


def confirm(script: Script, target_signature: str, run: Run, *, n: int = CONFIRM_RUNS) -> tuple[int, int]:
    """Run ``script`` ``n`` times; returns ``(k, n)``, ``k`` being the runs with a violation of that signature.

    ``run`` must play every script in a fresh scheduler. Raises `EngineError` when a run is not possible.
    """
    if n < 1:
        raise ValueError(f"n: at least one run is needed, got {n}")
    k = 0
    for _ in range(n):
        violation = run(script).violation
        k += violation is not None and signature(violation, script.config) == target_signature
    return k, n
