"""The canary: a seeded fault that the campaign must find, as a check that the campaign detects anything at all.

While a campaign searches, some of its scripts are played again on a second engine of the same kind that has the canary
fault. The outcome is compared with the outcome without the fault; it is not counted in any statistics.
"""

from __future__ import annotations

from collections.abc import Callable

from sr_fuzz.campaign.events import CanaryPlayed, CanaryTally, Listener, Summary
from sr_fuzz.campaign.trouble import first_line
from sr_fuzz.engine.contract import Engine
from sr_fuzz.faults.canary import canary
from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import ConfigNotBooted

StartCanary = Callable[[], Engine]
"""Starts an engine like the campaign's own, with the canary fault."""

# The first configuration is checked from the first script on. Each further configuration costs another boot, so it is
# checked only while all checks have taken no more than a twentieth of the campaign.
SHARE = 0.05

# A hang or a crash may come from a busy machine or a dying process, so it is no evidence about the invariants.
_NO_SIGHT = ("hang", "crash")


MAX_FAILURES = 3
"""Scripts that a faulty engine, started anew for each, may fail to play before it counts as one that plays nothing."""


class CanaryWatch:
    """Plays scripts on a faulty engine until the canary is found there, or until it should have been found."""

    def __init__(
        self,
        start: StartCanary,
        summary: Summary,
        *,
        on_event: Listener,
        name_of: Callable[[EngineConfig], str],
        clock: Callable[[], float],
    ) -> None:
        self._start = start
        self._tallies = summary.canary
        self._on_event = on_event
        self._name_of = name_of
        self._clock = clock
        self._engine: Engine | None = None
        self.spent_s = 0.0

    def look(self, script: Script, healthy: Outcome, elapsed_s: float) -> None:
        """Play ``script`` again if its configuration is to be checked. ``healthy``: its outcome without the fault."""
        name = self._name_of(script.config)
        tally = self._tallies.get(name)
        if tally is None:
            if self._tallies and self.spent_s > SHARE * elapsed_s:
                return
            tally = self._tallies[name] = CanaryTally()
        if tally.verdict != "undecided":
            return
        began = self._clock()
        try:
            self._play(tally, script, healthy)
        finally:
            took = self._clock() - began
            self.spent_s += took
        if tally.verdict != "undecided":
            # The check of this configuration is done, so the engine only takes memory now.
            self.close()
        self._on_event(CanaryPlayed(name, tally.verdict, tally.scripts, took, tally.found_by, tally.why_blind))

    def close(self) -> None:
        """End the faulty engine. Idempotent."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.__exit__(None, None, None)

    def _play(self, tally: CanaryTally, script: Script, healthy: Outcome) -> None:
        try:
            if self._engine is None:
                self._engine = self._start().__enter__()
            outcome = self._engine.run(script)
        except Exception as error:
            # A broken engine says nothing about what the invariants see; one that breaks again and again does.
            tally.failures += 1
            if isinstance(error, ConfigNotBooted) or tally.failures == MAX_FAILURES:
                tally.problem = first_line(error)
            self.close()
            return
        seen = outcome.violation
        if seen is not None and (seen.invariant in _NO_SIGHT or _same(seen, healthy.violation, script.config)):
            return  # that ended the script before the canary could be seen
        tally.scripts += 1
        tally.triggered += outcome.faults.get(canary.name, (0, 0))[1] > 0
        if seen is not None:
            tally.found_by = f"{seen.invariant}: {seen.rule}"


def _same(one: Violation, other: Violation | None, config: EngineConfig) -> bool:
    return other is not None and signature(one, config) == signature(other, config)
