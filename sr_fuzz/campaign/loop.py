"""The campaign loop: it plays random scripts until the time is up.

Each new finding is minimised, confirmed and written out. A finding never ends a campaign: one whose signature is known,
or was already found in the same campaign, is only counted, so that one bug does not hide the next.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from sr_fuzz.bugs.known import Known, script_of
from sr_fuzz.campaign.canary import CanaryWatch, StartCanary
from sr_fuzz.campaign.counts import Counts
from sr_fuzz.campaign.events import (
    FindingKnown,
    FindingNew,
    FindingTally,
    Finished,
    Listener,
    ScriptDone,
    Started,
    Summary,
)
from sr_fuzz.campaign.known_hits import KnownHits, Look
from sr_fuzz.campaign.pipeline import ALONE, Against, Pipeline
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.trouble import MAX_IN_A_ROW, RESUMING, TroubleLog
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import EngineConfig, Script, script_hash
from sr_fuzz.script.errors import ConfigNotBooted
from sr_fuzz.script.text import config_text
from sr_fuzz.shrink.minimise import MAX_RUNS
from sr_fuzz.strategies import draw

# Hypothesis begins each round with a few small examples, which are useful only now and then, and keeps all generated
# examples until the round ends, which costs memory. A round of one hundred limits both.
ROUND = 100

# A strategy whose scripts have all been played generates nothing new. Nearly all scripts of a useful strategy's round
# are new, so three rounds in a row without a new script mean that the strategy is exhausted.
EMPTY_ROUNDS = 3

# Keeps the rounds of neighbouring seeds apart: seed 7, round 1 must not be seed 8, round 0.
_SEED_STRIDE = 1_000_003

# A campaign searches; looking again at what it knows may take one fifth of its time, after the first minute. On the
# server engine a fix is another server, which takes half a minute to start.
_LOOK_SHARE = 0.2
_LOOK_FIRST_S = 60.0


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
    script_of: Callable[[Path], Script | None] = script_of,
    name_of: Callable[[EngineConfig], str] = config_text,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Play scripts drawn from ``scripts`` on ``engine`` for ``time_s`` seconds, or until ``max_scripts`` are done.

    Several strategies run one after the other, each with an equal share of the time. The same ``seed`` draws the same
    scripts. Repros go into ``out``; signatures in ``known`` (as `known_signatures` reads them) are only counted. A
    finding that is being followed up when the time is up is completed, so the campaign may end later by the time that
    `Pipeline` takes for it. Ctrl-C ends the campaign with its summary; a finding in progress is then written as it is.
    ``canary`` starts an engine with the canary fault, which must be found: see `CanaryWatch` and `Summary.blind`.
    ``triage`` decides which new findings are faces of known bugs; their repros are marked as expected failures.
    ``script_of`` gives the script of a known bug, with which hits are compared if the bug has no fix. ``name_of`` gives
    the name of a configuration in events and in the summary.

    An error that keeps a script from being played is trouble: it is written to disk, the engine is restarted, and the
    campaign continues, unless several scripts in a row could not be played (`Summary.gave_up`).

    Raises `EngineError` when the engine cannot start at all, or boots none of the configurations.
    """
    # This comes before the clock starts, because reading the version starts the engine.
    version = engine.sglang_version
    campaign = _Campaign(engine, out, known, on_event, max_runs, canary, triage, script_of, name_of, clock)
    on_event(Started(version, seed, time_s, max_scripts, out, len(known), engine.sglang_tree))
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
        script_of: Callable[[Path], Script | None],
        name_of: Callable[[EngineConfig], str],
        clock: Callable[[], float],
    ) -> None:
        self.summary = Summary()
        self._troubles = TroubleLog(out, self.summary.troubles, on_event)
        engine = ResumedEngine(engine, lambda script, error: self._troubles.keep(script, error, RESUMING))
        self._engine = engine
        self._known = Known(known.pairs() if isinstance(known, Known) else known.items())  # a copy, which grows
        self._on_event = on_event
        self._name_of = name_of
        self._clock = clock
        self._start = clock()
        self._played: set[str] = set()
        self._hits = KnownHits(engine, triage.fixes, script_of) if triage is not None else None
        self._looked_s = 0.0
        self._not_booted: dict[EngineConfig, ConfigNotBooted] = {}
        self._counts = Counts(self.summary)
        self._pipeline = Pipeline(
            engine, out, self.summary,
            troubles=self._troubles, triage=triage, max_runs=max_runs, on_event=on_event, clock=clock,
            restart=self._restart, taken={path for _, (path, _) in self._known.pairs()},
        )  # fmt: skip
        self._canary = (
            CanaryWatch(canary, self.summary, on_event=on_event, name_of=name_of, clock=clock) if canary else None
        )

    def end(self) -> None:
        """Fill in the times and totals, and shut down what was started here."""
        self.summary.elapsed_s = self._clock() - self._start
        with ExitStack() as closing:
            for engines in (self._canary, self._hits):
                if engines is not None:
                    closing.callback(engines.close)
        canary_s = self._canary.spent_s if self._canary is not None else 0.0
        self.summary.search_s = self.summary.elapsed_s - canary_s - self._pipeline.spent_s - self._looked_s
        self._counts.end()

    def search(
        self, phases: Sequence[SearchStrategy[Script]], seed: int, time_s: float, max_scripts: int | None
    ) -> None:
        rounds = (seed * _SEED_STRIDE + number for number in itertools.count())
        for number, scripts in enumerate(phases, 1):
            self._search(scripts, rounds, time_s * number / len(phases), max_scripts)
            if self.summary.gave_up:
                return
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
        outcome = self._run(script)
        if outcome is None:
            return
        found = signature(outcome.violation, script.config) if outcome.violation is not None else None
        self._count(script, outcome, found)
        if self._canary is not None:
            self._canary.look(script, outcome, self._clock() - self._start)
        if found is not None:
            self._take(found, script, outcome)

    def _run(self, script: Script) -> Outcome | None:
        """None where the script could not be played, which is counted."""
        if script.config in self._not_booted:
            return None
        try:
            outcome = self._engine.run(script)
        except ConfigNotBooted as error:
            self._not_booted[script.config] = error
            self._counts.add_not_booted(self._name_of(script.config), str(error).partition("\n")[0])
            return None
        except Exception as error:
            self._trouble(script, error)
            return None
        self._troubles.in_a_row = 0
        return outcome

    def _take(self, found: str, script: Script, outcome: Outcome) -> None:
        """Count a violation of that signature, and follow it up where that is due."""
        assert outcome.violation is not None
        tally, bugs = self.summary.findings.get(found), self._known.candidates(found)
        if tally is not None:
            tally.count += 1
            self._on_event(FindingKnown(found, tally.reason if tally.status == "known" else None))
            if self._pipeline.is_due(tally, found):
                self._follow_up(found, tally, script, outcome)
        elif bugs:
            path, reason = bugs[0]
            tally = self.summary.findings[found] = FindingTally("known", outcome.violation, path=path, reason=reason)
            self._on_event(FindingKnown(found, reason))
        else:
            self._new(found, FindingTally("new", outcome.violation), script, outcome)
        if tally is not None and bugs and self._may_look(found, outcome):
            self._look_again(tally, found, script, outcome)

    def _new(
        self, key: str, tally: FindingTally, script: Script, outcome: Outcome, against: Against = ALONE
    ) -> None:
        self.summary.findings[key] = tally
        suspect = tally.status == "suspect"
        self._on_event(FindingNew(key, tally.violation, self._name_of(script.config), len(script.actions), suspect))
        self._follow_up(key, tally, script, outcome, against)

    def _follow_up(
        self, key: str, tally: FindingTally, script: Script, outcome: Outcome, against: Against = ALONE
    ) -> None:
        """Follow up a finding. If known bugs explain it, they have its signature from now on.

        So later hits are looked at again like those of any known signature, since another bug may have it as well.
        """
        self._pipeline.follow_up(tally, key, script, outcome, against)
        assert outcome.violation is not None
        for path in self._pipeline.explained.get(key, ()):
            self._known.add(signature(outcome.violation, script.config), (path, tally.reason))

    def _may_look(self, found: str, outcome: Outcome) -> bool:
        if self._hits is None or not self._hits.count_hit(found, outcome):
            return False
        return self._looked_s <= _LOOK_FIRST_S + _LOOK_SHARE * (self._clock() - self._start)

    def _look_again(self, tally: FindingTally, found: str, script: Script, outcome: Outcome) -> None:
        """Ask of a hit of a known signature whether it is one of the known bugs with that signature."""
        assert self._hits is not None
        began = self._clock()
        bugs = self._known.candidates(found)
        try:
            look = self._hits.look(found, [path for path, _ in bugs], script, outcome)
        except Exception as error:
            self._troubles.keep(script, error, "verifying")
            self._restart()  # what broke may be what all engines of the campaign share
            return
        finally:
            self.summary.unplayed_fixes |= self._hits.unplayed
            self._looked_s += self._clock() - began
        tally.verified += look.verdict == "verified" or (look.verdict == "masked" and look.path is not None)
        tally.fitted += look.verdict == "fits"
        if look.path is not None:
            reason = dict(bugs)[look.path]
            tally.causes[reason] = tally.causes.get(reason, 0) + 1
            # The first bug with that signature need not be the one.
            if len(tally.causes) == 1 and tally.finding is None:
                tally.path, tally.reason = look.path, reason
        if look.verdict == "suspect":
            tally.count -= 1  # it is counted as a suspect
            self._suspect(found, script, look)
            return
        tally.asked += look.verdict != "fits" and bool(look.fixes)
        if look.verdict == "masked":
            self._masked(script, look)

    def _suspect(self, found: str, script: Script, look: Look) -> None:
        """A hit that is there although the known bugs of its signature are fixed, or that has not their face."""
        assert self._hits is not None and look.outcome.violation is not None
        hits, bugs = self._hits, [path for path, _ in self._known.candidates(found)]
        against = Against(
            functools.partial(hits.engine_with, look.fixes), functools.partial(hits.same_face, found, bugs)
        )
        key = self._suspect_key(found)
        tally = self.summary.findings.get(key)
        if tally is None:
            names = ", ".join(path.name for path in bugs)
            why = "it shows although those that have a fix are fixed" if look.fixes else "its situation is not theirs"
            tally = FindingTally(
                "suspect", look.outcome.violation, reason=f"possibly another bug than those of {names}: {why}"
            )
            self._new(key, tally, script, look.outcome, against)
            return
        tally.count += 1
        if self._pipeline.is_due(tally, key):
            self._follow_up(key, tally, script, look.outcome, against)

    def _suspect_key(self, found: str) -> str:
        """A suspect that turned out to be a known bug is closed; what is suspect after it is another one."""
        keys = (f"{found} (suspect{f' {number}' if number > 1 else ''})" for number in itertools.count(1))
        closed = {key for key, tally in self.summary.findings.items() if tally.status == "known"}
        return next(key for key in keys if key not in closed)

    def _masked(self, script: Script, look: Look) -> None:
        """A violation that shows only when a known bug before it is fixed: it is news if its signature is."""
        assert self._hits is not None and look.outcome.violation is not None
        behind = signature(look.outcome.violation, script.config)
        against = Against(functools.partial(self._hits.engine_with, look.fixes))
        tally = self.summary.findings.get(behind)
        if tally is not None and self._pipeline.is_due(tally, behind):
            self._follow_up(behind, tally, script, look.outcome, against)
        if tally is None and not self._known.candidates(behind):
            self._new(behind, FindingTally("new", look.outcome.violation), script, look.outcome, against)

    def _trouble(self, script: Script, error: Exception) -> None:
        """Record an error that is no fault of SGLang, and restart the engine, unless restarts have not helped."""
        trouble = self._troubles.keep(script, error, "playing")
        self._troubles.in_a_row += 1
        if self._troubles.in_a_row >= MAX_IN_A_ROW:
            tried = f"{MAX_IN_A_ROW} scripts in a row could not be played, each on an engine that was started anew"
            self.summary.gave_up = f"{tried}: {trouble.what}"
            raise _Leave
        self._restart()

    def _restart(self) -> None:
        """Start all engines anew; those beside the main one are made from it, so they end first."""
        try:
            if self._canary is not None:
                self._canary.close()
            if self._hits is not None:
                self._hits.close()
            self._engine.restart()
        except Exception as error:
            self._troubles.keep(None, error, "restarting")

    def _count(self, script: Script, outcome: Outcome, found: str | None) -> None:
        name = self._name_of(script.config)
        self._counts.add(script.config, name, outcome)
        elapsed = self._clock() - self._start
        self._on_event(ScriptDone(name, outcome.steps, outcome.forwards, outcome.wall_s, elapsed, found))

