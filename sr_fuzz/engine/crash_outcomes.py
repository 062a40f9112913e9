"""Outcomes of scripts that ended the scheduler: a crash or a hang, with the stack of the scheduler."""

from __future__ import annotations

from sr_fuzz.engine.process_messages import Done, Execute, Run
from sr_fuzz.engine.stacks import dumped_locations, portable
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.script import script_hash

Faults = dict[str, tuple[int, int]]

_NO_STACK = "(no stack: the process was killed before it could write one)"


def hung(
    job: Run | Execute,
    stack: str,
    *,
    sglang_version: str,
    step: int,
    wall_s: float,
    package: str = "",
    faults: Faults | None = None,
) -> Done:
    """Return the outcome of a run that exceeded its time limit.

    ``step``: the number of the step that it did not come out of; 0 before the first one. ``package``: folder of the
    SGLang that wrote ``stack``; by default that of this process. ``faults``: as in `Outcome`.
    """
    if isinstance(job, Run):
        message = f"step {step} of the script was not over after {job.limit_s:.3g} s"
    else:
        message = f"the script function was not over after {job.limit_s:.3g} s, in step {step}"
    return _ended(job, ("hang", "timeout", message), stack, sglang_version, step, wall_s, package, faults or {})


def crashed(
    job: Run | Execute,
    rule: str,
    message: str,
    stack: str,
    *,
    sglang_version: str,
    step: int,
    wall_s: float,
    package: str = "",
    faults: Faults | None = None,
) -> Done:
    """Return the outcome of a run whose process died. ``rule``: the signal's name, if any. For the rest see `hung`."""
    return _ended(job, ("crash", rule, message), stack, sglang_version, step, wall_s, package, faults or {})


def _ended(
    job: Run | Execute,
    how: tuple[str, str, str],
    stack: str,
    sglang_version: str,
    step: int,
    wall_s: float,
    package: str,
    faults: Faults,
) -> Done:
    invariant, rule, message = how
    violation = Violation(
        invariant=invariant,
        rule=rule,
        message=message,
        step=step,
        location=dumped_locations(stack, package),
        stack=portable(stack, package) or _NO_STACK,
    )
    played = script_hash(job.script) if isinstance(job, Run) else ""
    outcome = Outcome(
        script_hash=played,
        sglang_version=sglang_version,
        violation=violation,
        steps=step,
        wall_s=wall_s,
        faults=faults,
    )
    return Done(outcome)
