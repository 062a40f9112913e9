"""The campaign loop: it plays random scripts until the time is up.

Each new finding is minimised, confirmed and written out. A finding never ends a campaign: one whose signature is known,
or was already found in the same campaign, is only counted, so that one bug does not hide the next.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from sr_fuzz.campaign.canary import CanaryWatch, StartCanary
from sr_fuzz.campaign.counts import Counts
from sr_fuzz.campaign.events import (
    Confirmed,
    Emitted,
    Explained,
    FindingKnown,
    FindingNew,
    FindingTally,
    Finished,
    Listener,
    Minimised,
    Minimising,
    ScriptDone,
    Started,
    Summary,
)
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.script import EngineConfig, Script, script_hash
from sr_fuzz.script.errors import ConfigNotBooted
from sr_fuzz.script.text import config_text
from sr_fuzz.shrink.finding_steps import Investigated, first_seen, reproduce, shrink
from sr_fuzz.shrink.minimise import MAX_RUNS
from sr_fuzz.strategies import draw

# Hypothesis begins each round with a few small examples, which are useful only now and then, and keeps all generated
# examples until the round ends, which costs memory. A round of one hundred limits both.
ROUND = 100

# A strategy whose scripts have all been played generates nothing new. Nearly all scripts of a useful strategy's round
# are new, so three rounds in a row without a new script mean that the strategy is exhausted.
EMPTY_ROUNDS = 3

# A hang takes the whole wall-clock limit in each run (20 s by default), so sixty runs would take twenty minutes.
# Therefore shrinking a finding starts no run after this time, and confirming makes as many runs as fit into it.
PATIENCE_S = 60.0

# Keeps the rounds of neighbouring seeds apart: seed 7, round 1 must not be seed 8, round 0.
_SEED_STRIDE = 1_000_003


class _Leave(BaseException):
    """Leaves Hypothesis at once. It is not an `Exception`, which Hypothesis would treat as a failure and replay."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


def run_campaign(
    engine: Engine,
    *,
    scripts: SearchStrategy[Script] | Sequence[SearchStrategy[Script]],
    time_s: float,
    seed: int,
    out: Path,
    known: Mapping[str, tuple[Path, str]],
    on_event: Listener,
    max_scripts: int | None = None,
    max_runs: int = MAX_RUNS,
    canary: StartCanary | None = None,
    triage: Triage | None = None,
    name_of: Callable[[EngineConfig], str] = config_text,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Play scripts drawn from ``scripts`` on ``engine`` for ``time_s`` seconds, or until ``max_scripts`` are done.

    Several strategies run one after the other, each with an equal share of the time. The same ``seed`` draws the same
    scripts. Repros go into ``out``; signatures in ``known`` (as `known_signatures` reads them) are only counted. A
    finding that is being minimised when the time is up is completed, so the campaign may end later by its ``max_runs``,
    or by twice `PATIENCE_S`. Ctrl-C ends the campaign with its summary; a finding in progress is then written as it is.
    ``canary`` starts an engine with the canary fault, which must be found: see `CanaryWatch` and `Summary.blind`.
    ``triage`` decides which new findings are faces of known bugs; their repros are marked as expected failures.
    ``name_of`` gives the name of a configuration in events and in the summary.

    Raises `EngineError`, after the `Finished` event, when the engine cannot continue.
    """
    # This comes before the clock starts, because reading the version starts the engine.
    version = engine.sglang_version
    campaign = _Campaign(engine, out, known, on_event, max_runs, canary, triage, name_of, clock)
    on_event(Started(version, seed, time_s, max_scripts, out, len(known)))
    try:
        phases = [scripts] if isinstance(scripts, SearchStrategy) else scripts
        campaign.search(phases, seed, time_s, max_scripts)
    except KeyboardInterrupt:
        campaign.summary.interrupted = True
    finally:
        campaign.end()
        on_event(Finished(campaign.summary, out))
    return campaign.summary


class _Campaign:
    """The state of one campaign: the scripts played and the findings so far."""

    def __init__(
        self,
        engine: Engine,
        out: Path,
        known: Mapping[str, tuple[Path, str]],
        on_event: Listener,
        max_runs: int,
        canary: StartCanary | None,
        triage: Triage | None,
        name_of: Callable[[EngineConfig], str],
        clock: Callable[[], float],
    ) -> None:
        self.summary = Summary()
        self._engine = engine
        self._out = out
        self._known = known
        self._on_event = on_event
        self._max_runs = max_runs
        self._triage = triage
        self._name_of = name_of
        self._clock = clock
        self._start = clock()
        self._set_aside_s = 0.0
        self._played: set[str] = set()
        self._not_booted: dict[EngineConfig, ConfigNotBooted] = {}
        self._counts = Counts(self.summary)
        self._canary = (
            CanaryWatch(canary, self.summary, on_event=on_event, name_of=name_of, clock=clock) if canary else None
        )

    def end(self) -> None:
        """Fill in the times and totals, and shut down what was started here."""
        self.summary.elapsed_s = self._clock() - self._start
        if self._canary is not None:
            self._set_aside_s += self._canary.spent_s
            self._canary.close()
        self.summary.search_s = self.summary.elapsed_s - self._set_aside_s
        self._counts.end()

    def search(
        self, phases: Sequence[SearchStrategy[Script]], seed: int, time_s: float, max_scripts: int | None
    ) -> None:
        rounds = (seed * _SEED_STRIDE + number for number in itertools.count())
        for number, scripts in enumerate(phases, 1):
            self._search(scripts, rounds, time_s * number / len(phases), max_scripts)
        if self._not_booted and not self.summary.scripts:
            raise next(iter(self._not_booted.values()))

    def _search(
        self, scripts: SearchStrategy[Script], rounds: Iterator[int], until_s: float, max_scripts: int | None
    ) -> None:
        """Play round after round until the time is up, enough scripts are done, or no new scripts are generated."""

        def play(script: Script) -> None:
            if self._clock() - self._start >= until_s or self.summary.scripts == max_scripts:
                raise _Leave
            try:
                self._play(script)
            except Exception as error:
                raise _Leave(error) from error

        empty = 0
        for seed in rounds:
            before = self.summary.scripts
            try:
                draw.for_each(scripts, play, seed=seed, count=ROUND)
            except _Leave as leave:
                if leave.error is not None:
                    raise leave.error from None
                return
            empty = empty + 1 if self.summary.scripts == before else 0
            if empty == EMPTY_ROUNDS:
                return

    def _play(self, script: Script) -> None:
        key = script_hash(script)
        if key in self._played:
            return
        self._played.add(key)
        if script.config in self._not_booted:
            return
        try:
            outcome = self._engine.run(script)
        except ConfigNotBooted as error:
            self._not_booted[script.config] = error
            self._counts.add_not_booted(self._name_of(script.config), str(error).partition("\n")[0])
            return
        found = signature(outcome.violation, script.config) if outcome.violation is not None else None
        self._count(script, outcome, found)
        if self._canary is not None:
            self._canary.look(script, outcome, self._clock() - self._start)
        if outcome.violation is None or found is None:
            return
        if found in self.summary.findings:
            tally = self.summary.findings[found]
            tally.count += 1
            self._on_event(FindingKnown(found, tally.reason if tally.status == "known" else None))
        elif found in self._known:
            path, reason = self._known[found]
            self.summary.findings[found] = FindingTally("known", outcome.violation, path=path, reason=reason)
            self._on_event(FindingKnown(found, reason))
        else:
            self._new_finding(script, outcome, outcome.violation, found)

    def _count(self, script: Script, outcome: Outcome, found: str | None) -> None:
        name = self._name_of(script.config)
        self._counts.add(script.config, name, outcome)
        elapsed = self._clock() - self._start
        self._on_event(ScriptDone(name, outcome.steps, outcome.forwards, outcome.wall_s, elapsed, found))

    # -- a new finding -----------------------------------------------------------------------------------------

    def _new_finding(self, script: Script, outcome: Outcome, violation: Violation, found: str) -> None:
        tally = self.summary.findings[found] = FindingTally("new", violation)
        self._on_event(FindingNew(found, violation, self._name_of(script.config), len(script.actions)))
        seen = first_seen(script, outcome, self._engine)
        began = self._clock()
        cause = None
        try:
            seen = self._minimise(seen)
            seen = self._confirm(seen)
            cause = self._explain(seen)
        finally:
            # This also runs on an interrupt or when the engine dies, so that a finding is never lost.
            path = emit(seen.finding, self._out, trace=seen.outcome.trace, known_cause=cause)
            tally.finding, tally.path = seen.finding, path
            if cause is not None:
                tally.status, tally.reason = "known", cause
            self._on_event(Emitted(seen.finding, path))
            self._set_aside_s += self._clock() - began

    def _explain(self, seen: Investigated) -> str | None:
        if self._triage is None or not seen.finding.reproduced:
            return None  # a finding that does not reproduce would be gone with any fix
        tests = self._triage.explain(seen.finding)
        self.summary.unplayed_fixes |= self._triage.unplayed
        if not tests:
            return None
        self._on_event(Explained(seen.finding.signature, tests))
        names = " and ".join(path.name for path in tests)
        return f"another face of the bug of {names}: gone when that is mended"

    def _minimise(self, seen: Investigated) -> Investigated:
        found = seen.finding.signature
        self._on_event(Minimising(found, len(seen.finding.script.actions), self._max_runs))
        give_up = self._clock() + PATIENCE_S
        small = shrink(seen, self._engine.run, max_runs=self._max_runs, stop=lambda: self._clock() > give_up)
        self._on_event(Minimised(found, len(small.finding.script.actions), small.finding.reruns))
        return small

    def _confirm(self, seen: Investigated) -> Investigated:
        # The limit is in time, not in runs: where the scheduler is restarted for each run, that takes longer than the
        # script.
        give_up = self._clock() + PATIENCE_S
        seen = reproduce(seen, self._engine, stop=lambda: self._clock() >= give_up)
        self._on_event(Confirmed(seen.finding.signature, seen.finding.reproduced, seen.finding.tried))
        return seen
