"""The counts that a campaign takes of each run, and the totals it derives from them at its end."""

from __future__ import annotations

from sr_fuzz.campaign.events import ConfigTally, Gap, Summary
from sr_fuzz.outcome import Outcome
from sr_fuzz.play.reach import GROUPS
from sr_fuzz.play.reach_kinds import add_reach, dead_kinds
from sr_fuzz.script import EngineConfig

GAPS = ("not_played", "not_checked", "coarse", "not_counted")
"""Fields of both `Outcome` and `Summary` that list what was left out."""


class Counts:
    """Fills in a `Summary`, one run at a time."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._gaps: dict[tuple[str, str, str], Gap] = {}
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
        for kind in GAPS:
            for what, reason in getattr(outcome, kind).items():
                self._add_gap(kind, what, reason, name)

    def _add_gap(self, kind: str, what: str, reason: str, name: str) -> None:
        known = self._gaps.get((kind, what, reason))
        if known is None:
            known = self._gaps[kind, what, reason] = Gap(what, reason)
            getattr(self._summary, kind).append(known)
        known.scripts += 1
        if name not in known.configs:
            known.configs.append(name)

    def add_not_booted(self, name: str, reason: str) -> None:
        """Count a configuration for which no scheduler could be booted."""
        self._summary.not_played.append(Gap(f"configuration {name}", reason))

    def end(self) -> None:
        """Fill in the totals: kinds that were never reached, and invariants without a subject on any configuration."""
        summary = self._summary
        had_one = summary.checks.keys() | {gap.what for gap in summary.not_checked}
        summary.no_subject = {name: why for name, why in summary.no_subject.items() if name not in had_one}
        if summary.reach:
            left_out = tuple(kind for gap in summary.not_counted for kind in GROUPS[gap.what])
            not_played = {f"action.{gap.what}" for gap in summary.not_played}
            dead = dead_kinds(summary.reach, self._configs)
            summary.never_reached = [
                kind for kind in dead if not kind.startswith(left_out) and kind not in not_played
            ]
