"""What a campaign counts of each run, and what it makes of that at its end."""

from __future__ import annotations

from sr_fuzz.campaign.events import ConfigTally, NotChecked, Summary
from sr_fuzz.outcome import Outcome
from sr_fuzz.play.reach_kinds import add_reach, dead_kinds
from sr_fuzz.script import EngineConfig


class Counts:
    """Fills in a `Summary`, run by run."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._gaps: dict[tuple[str, str], NotChecked] = {}
        self._configs: set[EngineConfig] = set()

    def add(self, config: EngineConfig, name: str, outcome: Outcome) -> None:
        """Count a run on ``config``, which is called ``name``."""
        summary = self._summary
        for tally in (summary, summary.configs.setdefault(name, ConfigTally())):
            tally.scripts += 1
            tally.steps += outcome.steps
            tally.forwards += outcome.forwards
        tally = summary.configs[name]
        tally.violations += outcome.violation is not None
        tally.wall_s += outcome.wall_s
        self._configs.add(config)
        add_reach(summary.reach, outcome.reach)
        for invariant, times in outcome.checks.items():
            summary.checks[invariant] = summary.checks.get(invariant, 0) + times
        summary.no_subject |= outcome.no_subject
        for gaps, told in ((summary.not_checked, outcome.not_checked), (summary.coarse, outcome.coarse)):
            for invariant, reason in told.items():
                self._add_gap(gaps, invariant, reason, name)

    def _add_gap(self, gaps: list[NotChecked], invariant: str, reason: str, name: str) -> None:
        known = self._gaps.get((invariant, reason))
        if known is None:
            known = self._gaps[invariant, reason] = NotChecked(invariant, reason)
            gaps.append(known)
        known.scripts += 1
        if name not in known.configs:
            known.configs.append(name)

    def end(self) -> None:
        """Take stock: what was never reached, and which invariants had nothing to look at anywhere."""
        summary = self._summary
        had_one = summary.checks.keys() | {gap.invariant for gap in summary.not_checked}
        summary.no_subject = {name: why for name, why in summary.no_subject.items() if name not in had_one}
        if summary.reach:
            summary.never_reached = dead_kinds(summary.reach, self._configs)
