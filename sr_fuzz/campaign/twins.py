"""One bug on several kinds of engine, with a signature on each, since the traits of the engine are part of it.

Where a fix is known, that tells (`sr_fuzz.campaign.triage`). Of a bug that nobody knows yet, the script of the first
finding is played with the configuration of the second one: if it shows the same violation there, with the same face,
the two are one bug. Two scripts that are minimal seldom have one face by chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from sr_fuzz.campaign.known_hits import UNPLAYABLE, face
from sr_fuzz.engine.around.differential import compared
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.shrink.finding_steps import Investigated


def twin_of(seen: Investigated, others: Iterable[tuple[Finding, Path]], engine: Engine) -> Path | None:
    """Return the test of the first of the other findings that is the same bug; None for a bug of its own.

    Raises `EngineError` when the engine fails.
    """
    finding = seen.finding
    config = finding.script.config
    for other, path in others:
        if not _may_be(other, finding):
            continue
        try:
            engine.refuse(config)
            outcome = compared(engine, finding.signature).run(replace(other.script, config=config))
        except UNPLAYABLE:
            continue
        violation = outcome.violation
        is_same = violation is not None and signature(violation, config) == finding.signature
        if is_same and face(outcome) == face(seen.outcome):
            return path
    return None


def _may_be(one: Finding, other: Finding) -> bool:
    """Whether two findings differ in the traits of the engine alone, as far as their signatures tell."""
    if one.signature == other.signature or one.faults != other.faults:
        return False
    return signature(one.violation, other.script.config) == other.signature
