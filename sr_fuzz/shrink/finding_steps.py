"""The steps from a violation to a finding: minimise the script, then confirm it in fresh runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from sr_fuzz.engine.contract import Engine, UnderTest
from sr_fuzz.outcome import Finding, Outcome, signature
from sr_fuzz.script import Script
from sr_fuzz.shrink.confirm import confirm
from sr_fuzz.shrink.minimise import MAX_RUNS, Minimised, Run, minimise


class Investigated(NamedTuple):
    """A finding, and the outcome that shows it (its trace goes into the repro)."""

    finding: Finding
    outcome: Outcome


def first_seen(script: Script, outcome: Outcome, engine: UnderTest) -> Investigated:
    """Return the finding as ``engine`` showed it: not minimised and not confirmed.

    Raises ``ValueError`` when nothing was violated.
    """
    violation = outcome.violation
    if violation is None:
        raise ValueError("an outcome without a violation is no finding")
    finding = Finding(
        signature=signature(violation, script.config),
        script=script,
        violation=violation,
        sglang_version=outcome.sglang_version,
        original_actions=len(script.actions),
        faults=engine.faults,
        sglang_tree=engine.sglang_tree,
    )
    return Investigated(finding, outcome)


def shrink(
    seen: Investigated,
    run: Run,
    *,
    max_runs: int = MAX_RUNS,
    stop: Callable[[], bool] = lambda: False,
    on_simpler: Callable[[Investigated], None] = lambda so_far: None,
) -> Investigated:
    """Minimise the script; the signature does not change. ``on_simpler`` is called with the finding at each gain."""
    finding, outcome = seen

    def with_script(small: Minimised) -> Investigated:
        shrunk = replace(finding, script=small.script, violation=small.violation, reruns=small.runs)
        return Investigated(shrunk, small.outcome)

    small = minimise(
        finding.script, finding.violation, run, max_runs=max_runs, outcome=outcome, stop=stop,
        on_simpler=lambda so_far: on_simpler(with_script(so_far)),
    )  # fmt: skip
    return with_script(small)


def reproduce(
    seen: Investigated,
    engine: Engine,
    *,
    invariants: Sequence[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Investigated:
    """Confirm by fresh runs on ``engine``; once ``stop`` returns True no further run begins."""
    finding, outcome = seen
    k, tried = confirm(finding.script, finding.signature, engine.fresh(), invariants=invariants, stop=stop)
    return Investigated(replace(finding, reproduced=k, tried=tried), outcome)

