"""Triage: whether a new finding is another face of a known bug.

A bug often breaks several rules, on several kinds of engine, and each of these has its own signature. Where the test of
a known bug names its fixes (``FIXED_BY``, see `sr_fuzz.faults.fixes`), the minimal script of a new finding is played
again with that bug fixed. If there is no violation then, and the fix was triggered, the finding is that bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sr_fuzz.engine.around.differential import compared
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.script.errors import ConfigNotBooted


class Triage:
    """Plays a script on engines in which known bugs are fixed."""

    def __init__(self, engine: Engine, fixes: Mapping[Path, tuple[str, ...]]) -> None:
        """``engine`` creates the engines with fixes (``with_faults``). ``fixes``: by the file of a known bug's test."""
        self._engine = engine
        self.fixes = fixes
        self.unplayed: dict[str, str] = {}
        """Why fixes could not be played, by their import paths. Findings that they would explain are reported as
        new."""

    def explain(self, finding: Finding) -> tuple[Path, ...]:
        """Return tests of the bugs whose fixes remove the violation: one where one suffices, none for a new finding."""
        by_fixes: dict[tuple[str, ...], Path] = {}
        # A test that shows one bug is more specific than one that shows two.
        for path, fixes in sorted(self.fixes.items(), key=lambda item: len(item[1])):
            by_fixes.setdefault(fixes, path)
        if len(by_fixes) > 1 and self._shows_with_all(finding, by_fixes):
            return ()
        usable: dict[tuple[str, ...], Path] = {}
        for fixes, path in by_fixes.items():
            acted = self._gone(finding, fixes)
            if acted:
                return (path,)
            if acted is not None:
                usable[fixes] = path
        together = tuple(dict.fromkeys(fix for fixes in usable for fix in fixes))
        acted = self._gone(finding, together) if len(usable) > 1 else None
        return tuple(path for fixes, path in usable.items() if set(fixes) & set(acted or ()))

    def _shows_with_all(self, finding: Finding, by_fixes: Iterable[tuple[str, ...]]) -> bool:
        """Whether it is there although every known bug is fixed: one boot then, instead of one for each bug."""
        fixes = dict.fromkeys(fix for several in by_fixes for fix in several)
        try:
            with self._engine.with_faults(*finding.faults, *fixes) as engine:
                outcome = compared(engine, finding.signature).run(finding.script)
        except ConfigNotBooted:
            return False  # one of them is for other releases; each is tried by itself
        violation = outcome.violation
        return violation is not None and signature(violation, finding.script.config) == finding.signature

    def _gone(self, finding: Finding, fixes: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the triggered fixes if there is no violation with them, else none. None: they cannot be played."""
        try:
            with self._engine.with_faults(*finding.faults, *fixes) as engine:
                outcome = compared(engine, finding.signature).run(finding.script)
        except ConfigNotBooted as error:
            self.unplayed[", ".join(fixes)] = str(error).splitlines()[0]
            return None
        if outcome.violation is not None:
            return ()
        acted = {name for name, (_, times) in outcome.faults.items() if times > 0}
        # A fix has the name of its function, so this process does not have to import it.
        return tuple(fix for fix in fixes if fix.rpartition(":")[2] in acted)
