"""Whether a hit of a known signature really is the known bug: its fix must make the hit go away.

Two bugs can have one signature. The first hits of each *face* of a signature, and then a sample, are played once more
with the bug fixed. If the violation is still there, another bug may be behind the signature, and the hit is a suspect.
A bug without a fix cannot be verified; its hits are counted as such.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sr_fuzz.engine.around.differential import compared
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import Script

FIRST_HITS = 2
"""Hits of each face that are verified: the first, and one more in case that it was a rare coincidence."""

SAMPLE = 16
"""After those, one hit in so many of a face is verified: a bug that hides behind a common one is met now and then."""

_STEPS = 3
"""Steps before the violation that make up a face."""

_KEPT = 3
"""Engines with a fix that are kept: each takes a boot of a second or two for a configuration, and memory."""

Verdict = Literal["verified", "suspect", "unverified"]


def face(outcome: Outcome) -> str:
    """What was seen around a violation: the batch, whether the engine was paused, the kinds of the last actions."""
    last = outcome.trace[-_STEPS:]
    kinds = sorted({action.partition("(")[0].rpartition(" ")[2] for record in last for action in record.actions})
    if not last:
        return "no step"
    state = "paused" if last[-1].paused else last[-1].mode or "idle"
    chunked = " chunked" if last[-1].chunked is not None else ""
    return f"{state}{chunked} after {' '.join(kinds) or 'nothing'}"


class KnownHits:
    """Verifies hits of known signatures in one campaign."""

    def __init__(self, engine: Engine, fixes: Mapping[Path, tuple[str, ...]]) -> None:
        """``fixes``: by the file of a known bug, the import paths of its fixes."""
        self._engine = engine
        self._fixes = dict(fixes)
        self._hits: Counter[tuple[str, str]] = Counter()
        self._fixed: OrderedDict[tuple[str, ...], Engine] = OrderedDict()

    def count_hit(self, found: str, path: Path, outcome: Outcome) -> bool:
        """Count the hit, and say whether it is to be verified."""
        key = found, face(outcome)
        self._hits[key] += 1
        return path in self._fixes and (self._hits[key] <= FIRST_HITS or self._hits[key] % SAMPLE == 0)

    def verify(self, found: str, path: Path, script: Script) -> tuple[Verdict, Outcome]:
        """Play the script with the known bug fixed. Raises `EngineError` when that is not possible.

        ``suspect``: the same violation is there all the same. ``unverified``: it is gone, but no fix has acted, so that
        it may have gone by itself, or another violation came first.
        """
        outcome = compared(self.engine_with(path), found).run(script)
        if outcome.violation is not None:
            same = signature(outcome.violation, script.config) == found
            return ("suspect" if same else "unverified"), outcome
        names = {fix.rpartition(":")[2] for fix in self._fixes[path]}
        acted = any(times > 0 for name, (_, times) in outcome.faults.items() if name in names)
        return ("verified" if acted else "unverified"), outcome

    def give_up(self, path: Path, error: Exception) -> dict[str, str]:
        """Verify that bug no more, whose fix this SGLang does not take; the fix and why."""
        fixes = ", ".join(self._fixes.pop(path))
        return {fixes: str(error).partition("\n")[0]}

    def engine_with(self, path: Path) -> Engine:
        """The engine under test, its own faults included, with that known bug fixed."""
        fixes = self._fixes[path]
        engine = self._fixed.pop(fixes, None)
        if engine is None:
            if len(self._fixed) == _KEPT:
                self._fixed.popitem(last=False)[1].close()
            engine = self._engine.with_faults(*self._engine.faults, *fixes)
        self._fixed[fixes] = engine
        return engine

    def close(self) -> None:
        """End the engines that are kept. Idempotent; a later hit starts others."""
        while self._fixed:
            self._fixed.popitem()[1].close()
