"""Properties of two runs: the same script played twice, and each request played alone.

`DifferentialEngine` plays scripts again. *Determinism*: the same script on the same engine gives the same trace and the
same outputs. *Independence*: the output of a request does not depend on the other requests of its batch, on the cache's
history or on a retraction; `AloneEngine` compares it with the output of the request alone. A difference is a violation
like any other, so it is counted, minimised, confirmed and written out.

This is meant for engines that start each script from the same state (the local engine). After another script has filled
the tree and it was emptied again, it hands out other pages, and a shuffling schedule policy continues its random
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from sr_fuzz.engine.around.independence import NAME as INDEPENDENCE
from sr_fuzz.engine.around.independence import AloneEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.wrapped_engine import WrappedEngine
from sr_fuzz.outcome import Outcome, StepRecord, Violation
from sr_fuzz.script import Script

DETERMINISM = "determinism"


class DifferentialEngine(WrappedEngine):
    """An engine that also reports a second run that differs, and a request whose output differs when it runs alone."""

    def __init__(self, engine: Engine, every: int = 1) -> None:
        """``every``: compare every n-th script without another violation; the other scripts are played once.

        After the first difference all scripts are compared, so that a script that shows one can be minimised.
        """
        if every < 1:
            raise ValueError(f"every: expected 1 or more, got {every}")
        super().__init__(engine)
        self._every = every
        self._alone = AloneEngine(engine)
        self._runs = 0

    def around(self, engine: Engine) -> DifferentialEngine:
        return DifferentialEngine(engine, self._every)

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        outcome = self._engine.run(script, invariants=invariants, limit_s=limit_s)
        if outcome.violation is not None:
            return outcome
        self._runs += 1
        if self._runs % self._every:
            return outcome
        outcome = self._compared(script, outcome, invariants, limit_s)
        if outcome.violation is not None:
            self._every = 1
        return outcome

    def _compared(
        self, script: Script, outcome: Outcome, invariants: Sequence[str] | None, limit_s: float | None
    ) -> Outcome:
        if invariants is None or DETERMINISM in invariants:
            again = self._engine.run(script, invariants=invariants, limit_s=limit_s)
            violation = difference(outcome, again)
            if violation is not None:
                return replace(outcome, violation=violation)
            outcome = replace(outcome, checks=outcome.checks | {DETERMINISM: 1})
        return self._alone.compare(script, outcome, invariants=invariants)


def compared(engine: Engine, signature: str | None) -> Engine:
    """Return the engine that can show a finding again; it compares runs if the finding is a difference of runs."""
    return DifferentialEngine(engine) if (signature or "").partition(":")[0] in (DETERMINISM, INDEPENDENCE) else engine


def difference(one: Outcome, other: Outcome) -> Violation | None:
    """Return a `determinism` violation at the first step where two runs of a script differ; None if there is none."""
    if other.violation is not None:
        broken = other.violation
        message = f"of two runs of the script the second broke {broken.invariant}: {broken.rule} ({broken.message})"
        return Violation(DETERMINISM, "other_violation", message, broken.step, "end")
    for a, b in zip(one.trace, other.trace):
        if a != b:
            message = f"two runs of the script differ from step {a.step} on, in {_fields(a, b)}"
            return Violation(DETERMINISM, "other_trace", message, a.step, "end")
    if one.steps != other.steps:
        message = f"two runs of the script take {one.steps} and {other.steps} steps"
        return Violation(DETERMINISM, "other_trace", message, min(one.steps, other.steps), "end")
    for name in sorted(one.outputs.keys() | other.outputs.keys()):
        if one.outputs.get(name) != other.outputs.get(name):
            return Violation(DETERMINISM, "other_output", f"{name} gets two outputs in two runs", one.steps, "end")
    return None


def _fields(a: StepRecord, b: StepRecord) -> str:
    fields = ((name, getattr(a, name), getattr(b, name)) for name in a.__struct_fields__)
    return "; ".join(f"{name}: {_shown(x)} against {_shown(y)}" for name, x, y in fields if x != y)


def _shown(value: Any) -> str:
    return " ".join(value) or "none" if isinstance(value, tuple) else str(value)
