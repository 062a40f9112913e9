"""Triage: whether a new finding is another face of a known bug.

A bug often breaks several rules, on several kinds of engine, and each of these has its own signature. Where the test of
a known bug names its fixes (``FIXED_BY``, see `sr_fuzz.faults.fixes`), the minimal script of a new finding is played
again with that bug fixed. If there is no violation then, and the fix was triggered, the finding is that bug.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from sr_fuzz.campaign.known_hits import UNPLAYABLE
from sr_fuzz.engine.around.differential import compared
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding, Outcome, signature

# A finding that one of five fresh runs shows needs 21 clean runs; no ratio of five needs more.
_MOST_RUNS = 21


class Triage:
    """Plays a script on engines in which known bugs are fixed."""

    def __init__(self, engine: Engine, fixes: Mapping[Path, tuple[str, ...]], *, all_new: bool = False) -> None:
        """``engine`` creates the engines with fixes (``with_faults``). ``fixes``: by the file of a known bug's test.

        ``all_new``: the first finding of each known bug is a new one, and only the next is another face of it.
        """
        self._engine = engine
        self.fixes = fixes
        self.all_new = all_new
        self.unplayed: dict[str, str] = {}
        """Why fixes could not be played, by their import paths. Findings that they would explain are reported as
        new."""

    def explain(self, finding: Finding) -> tuple[Path, ...]:
        """Return tests of the bugs whose fixes remove the violation: one where one suffices, none for a new finding.

        The first run has all fixes: news costs that run alone. Then only those that acted in it are tried one by one.
        """
        by_fixes: dict[tuple[str, ...], Path] = {}
        # A test that shows one bug is more specific than one that shows two.
        for path, fixes in sorted(self.fixes.items(), key=lambda item: len(item[1])):
            if not set(fixes) <= set(finding.faults):  # of a suspect, some were on when it reproduced
                by_fixes.setdefault(fixes, path)
        likely = self._likely(finding, by_fixes) if len(by_fixes) > 1 else by_fixes
        usable: dict[tuple[str, ...], Path] = {}
        for fixes, path in likely.items():
            acted = self._gone(finding, fixes)
            if acted:
                return (path,)
            if acted is not None:
                usable[fixes] = path
        together = tuple(dict.fromkeys(fix for fixes in usable for fix in fixes))
        acted = self._gone(finding, together) if len(usable) > 1 else None
        return tuple(path for fixes, path in usable.items() if set(fixes) & set(acted or ()))

    def _likely(self, finding: Finding, by_fixes: Mapping[tuple[str, ...], Path]) -> dict[tuple[str, ...], Path]:
        """Return those that acted while every known bug was fixed; none where the violation is there all the same."""
        fixes = tuple(dict.fromkeys(fix for several in by_fixes for fix in several))
        try:
            with self._engine.with_faults(*finding.faults, *fixes) as engine:
                outcome = compared(engine, finding.signature).run(finding.script)
        except UNPLAYABLE:
            return dict(by_fixes)  # one of them is for other releases, or fails; each is tried by itself
        violation = outcome.violation
        if violation is not None and signature(violation, finding.script.config) == finding.signature:
            return {}
        acted = set(_acted(fixes, outcome))
        return {several: path for several, path in by_fixes.items() if acted & set(several)}

    def _gone(self, finding: Finding, fixes: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the triggered fixes if there is no violation with them, else none. None: they cannot be played.

        A flaky finding can be absent by chance, so it is played until that has a probability of one in a hundred.
        """
        acted: tuple[str, ...] = ()
        try:
            with self._engine.with_faults(*finding.faults, *fixes) as engine:
                for _ in range(clean_runs(finding)):
                    outcome = compared(engine, finding.signature).run(finding.script)
                    if outcome.violation is not None:
                        return ()
                    acted = acted or _acted(fixes, outcome)
        except UNPLAYABLE as error:
            self.unplayed[", ".join(fixes)] = str(error).splitlines()[0]
            return None
        return acted


def _acted(fixes: tuple[str, ...], outcome: Outcome) -> tuple[str, ...]:
    """Return the fixes that were triggered."""
    acted = {name for name, (_, times) in outcome.faults.items() if times > 0}
    # A fix has the name of its function, so this process does not have to import it.
    return tuple(fix for fix in fixes if fix.rpartition(":")[2] in acted)


def clean_runs(finding: Finding) -> int:
    """How many runs without the violation say that it is gone: (1 - k/n) ** runs <= 0.01."""
    if not 0 < finding.reproduced < finding.tried:
        return 1
    return min(_MOST_RUNS, math.ceil(math.log(0.01) / math.log(1 - finding.reproduced / finding.tried)))
