"""Replay of a script, a finding or a repro, and comparison with the violation that its file states."""

from __future__ import annotations

from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.outcome.files import Case
from sr_fuzz.script.wording import shortened


def replay(engine: Engine, case: Case) -> tuple[Outcome, str]:
    """Play ``case`` once; returns the outcome and one sentence that compares it with the file."""
    outcome = engine.run(case.script)
    if outcome.violation is None:
        return outcome, "not reproduced"
    found = signature(outcome.violation, case.script.config)
    if case.signature is None or case.signature == found:
        return outcome, f"reproduced: {found}"
    # This is still a failure: another SGLang version moves code, which changes the location in a signature.
    return outcome, f"reproduced, with another signature: {found}; the file says {shortened(case.signature)}"
