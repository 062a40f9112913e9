"""The campaign loop: it plays random scripts until the time is up.

Each new finding is minimised, confirmed and written out. A finding never ends a campaign: one whose signature is known,
or was already found in the same campaign, is only counted, so that one bug does not hide the next.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from sr_fuzz.bugs.known import Known, script_of
from sr_fuzz.campaign.canary import CanaryWatch, StartCanary
from sr_fuzz.campaign.counts import Counts
from sr_fuzz.campaign.events import Finished, Listener, ScriptDone, Started, Summary
from sr_fuzz.campaign.out_folder import OutFolder, Unfinished
from sr_fuzz.campaign.resuming import Resuming
from sr_fuzz.campaign.search import Search, round_seed
from sr_fuzz.campaign.sightings import Sightings
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.trouble import RESUMING, TroubleLog, first_line
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import ConfigNotBooted
from sr_fuzz.script.text import config_text
from sr_fuzz.shrink.minimise import MAX_RUNS

# A strategy whose scripts have all been played generates nothing new. Nearly all scripts of a useful strategy's round
# are new, so three rounds in a row without a new script mean that the strategy is exhausted.
EMPTY_ROUNDS = 3

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
    unfinished = campaign.read_out()
    before = campaign.out.number_of_files
    on_event(Started(version, seed, time_s, max_scripts, out, len(known), engine.sglang_tree, before))
    none_boots = False
    try:
        campaign.resume(unfinished, time_s)
        phases = [scripts] if isinstance(scripts, SearchStrategy) else scripts
        if not campaign.summary.gave_up:
            campaign.search(phases, seed, time_s, max_scripts)
    except KeyboardInterrupt:
        campaign.summary.interrupted = True
    except ConfigNotBooted:
        none_boots = True  # there is nothing to sum up, and nothing shall look like a result
        raise
    finally:
        campaign.end()
        if not none_boots:
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
        self._on_event = on_event
        self._name_of = name_of
        self._clock = clock
        self._start = clock()
        self._counts = Counts(self.summary)
        self._search = Search(
            engine, troubles=self._troubles, restart=self._restart, on_not_booted=self._add_not_booted
        )
        fixes = [path for paths in triage.fixes.values() for path in paths] if triage is not None else []
        self.out = OutFolder(out, engine, fixes=fixes, taken=_files(known))
        self._sightings = Sightings(
            engine, self.out, self.summary,
            known=known, troubles=self._troubles, restart=self._restart, on_event=on_event, triage=triage,
            max_runs=max_runs, script_of=script_of, name_of=name_of, clock=clock,
        )  # fmt: skip
        self._canary = (
            CanaryWatch(canary, self.summary, on_event=on_event, name_of=name_of, clock=clock) if canary else None
        )

    def end(self) -> None:
        """Fill in the times and totals, and shut down what was started here."""
        self.summary.elapsed_s = self._clock() - self._start
        with ExitStack() as closing:
            closing.callback(self._sightings.close)
            closing.callback(self.out.end)
            if self._canary is not None:
                closing.callback(self._canary.close)
        canary_s = self._canary.spent_s if self._canary is not None else 0.0
        beside_s = self._sightings.followed_up_s + self._sightings.looked_s
        self.summary.search_s = self.summary.elapsed_s - canary_s - beside_s
        self._counts.end()

    def read_out(self) -> list[Unfinished]:
        """Read the folder; returns what an earlier campaign has not finished there."""
        unfinished = self.out.read(lambda error: self._troubles.keep(None, error, "reading"))
        self._sightings.add_found_before()
        return unfinished

    def resume(self, unfinished: Sequence[Unfinished], time_s: float) -> None:
        """Complete the findings of earlier campaigns, until time is up."""
        Resuming(
            self._search, self._sightings, self.out,
            troubles=self._troubles, restart=self._restart, on_event=self._on_event, on_shown=self._count,
        ).resume(unfinished, lambda: self._clock() - self._start < time_s)  # fmt: skip
        self.summary.gave_up = self._search.gave_up

    def search(
        self, phases: Sequence[SearchStrategy[Script]], seed: int, time_s: float, max_scripts: int | None
    ) -> None:
        seeds = (round_seed(seed, number) for number in itertools.count())
        for number, scripts in enumerate(phases, 1):
            self._search_with(scripts, seeds, time_s * number / len(phases), max_scripts)
            if self.summary.gave_up:
                return
        if self._search.not_booted and not self.summary.scripts:
            raise next(iter(self._search.not_booted.values()))

    def _search_with(
        self, scripts: SearchStrategy[Script], seeds: Iterator[int], until_s: float, max_scripts: int | None
    ) -> None:
        """Play round after round until the time is up, enough scripts are done, or no new scripts are generated."""

        def may_go_on() -> bool:
            return self._clock() - self._start < until_s and self.summary.scripts != max_scripts

        empty = 0
        for seed in seeds:
            before = self.summary.scripts
            whole = self._search.round(
                scripts, seed, self._take, script_of=lambda script: script, may_go_on=may_go_on
            )
            self.summary.gave_up = self._search.gave_up
            empty = empty + 1 if self.summary.scripts == before else 0
            if not whole or empty == EMPTY_ROUNDS:
                return

    def _take(self, script: Script, outcome: Outcome) -> None:
        found = signature(outcome.violation, script.config) if outcome.violation is not None else None
        self._count(script, outcome, found)
        if self._canary is not None:
            self._canary.look(script, outcome, self._clock() - self._start)
        if found is not None:
            self._sightings.take(found, script, outcome)

    def _add_not_booted(self, config: EngineConfig, error: ConfigNotBooted) -> None:
        self._counts.add_not_booted(self._name_of(config), first_line(error))

    def _restart(self) -> None:
        """Start all engines anew; those beside the main one are made from it, so they end first."""
        try:
            if self._canary is not None:
                self._canary.close()
            self._sightings.close()
            self._engine.restart()
        except Exception as error:
            self._troubles.keep(None, error, "restarting")

    def _count(self, script: Script, outcome: Outcome, found: str | None) -> None:
        name = self._name_of(script.config)
        self._counts.add(script.config, name, outcome)
        elapsed = self._clock() - self._start
        self._on_event(ScriptDone(name, outcome.steps, outcome.forwards, outcome.wall_s, elapsed, found))


def _files(known: Mapping[str, tuple[Path, str]]) -> set[Path]:
    pairs = known.pairs() if isinstance(known, Known) else known.items()
    return {path for _, (path, _) in pairs}
