"""The pipeline of a new finding: minimise, confirm in fresh runs, compare with known bugs, write it out.

Trouble in one of these stages ends that stage and not the campaign. A finding that no fresh run shows again is written
as a script, never as a test, and followed up again when it is seen later, since the first follow-up may have missed it
by chance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from msgspec.structs import replace

from sr_fuzz.campaign.events import (
    Confirmed,
    Emitted,
    Explained,
    FindingTally,
    Listener,
    Minimised,
    Minimising,
    Summary,
)
from sr_fuzz.campaign.out_folder import OutFolder, Written
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.trouble import Troubles
from sr_fuzz.campaign.twins import twin_of
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding, Outcome
from sr_fuzz.script import Script
from sr_fuzz.script.errors import ConfigNotBooted, EngineError
from sr_fuzz.shrink.finding_steps import Investigated, first_seen, reproduce, shrink

Result = TypeVar("Result")


class Against(NamedTuple):
    """What a finding is followed up against, if it is one behind a known signature or behind a known bug."""

    engine: Callable[[], Engine] | None = None
    """Gives the engine on which the known bugs are fixed. Only there is every run with that signature one of the other
    bug. Trouble in a stage ends that engine, so each stage asks for it. None: the engine under test."""
    fits: Callable[[Outcome], Path | None] = lambda outcome: None
    """Gives the known bug, if any, of which the minimal script has the face."""


ALONE = Against()


class Cause(NamedTuple):
    """The known bugs that a finding is of."""

    reason: str
    is_known: bool = True
    """False for the first finding of a bug in a campaign to which all are new."""
    gone_with: tuple[str, ...] = ()
    """The fixes with which it is gone."""


# Five fresh runs miss a violation that shows in half of the runs with probability 1/32; three follow-ups, each of which
# confirms two scripts, miss it with probability 10^-9. A rarer violation is not worth more time.
MAX_FOLLOW_UPS = 3

# A hang takes the whole wall-clock limit in each run (20 s by default), so sixty runs would take twenty minutes.
# Therefore shrinking a finding starts no run after this time, and confirming makes as many runs as fit into it.
PATIENCE_S = 60.0


class Pipeline:
    """Follows up the findings of one campaign."""

    def __init__(
        self,
        engine: Engine,
        out: OutFolder,
        summary: Summary,
        *,
        troubles: Troubles,
        triage: Triage | None,
        max_runs: int,
        on_event: Listener,
        clock: Callable[[], float],
        restart: Callable[[], None],
    ) -> None:
        """``max_runs``: most runs for minimising one finding. ``restart``: starts all engines of the campaign anew."""
        self._restart = restart
        self._engine = engine
        self._out = out
        self._summary = summary
        self._troubles = troubles
        self._triage = triage
        self._max_runs = max_runs
        self._on_event = on_event
        self._clock = clock
        self._follow_ups: dict[str, int] = {}
        self._statuses: dict[str, Literal["new", "suspect"]] = {}
        """What a finding is if it reproduces and is not explained, by its key."""
        self.explained: dict[str, tuple[Path, ...]] = {}
        """The known bugs whose fixes remove a finding, by its key: they have its signature, too."""
        self._same: dict[str, Path] = {}
        """The test of an earlier campaign that shows the same, by the key of a finding."""
        self.spent_s = 0.0

    def is_due(self, tally: FindingTally, key: str) -> bool:
        """Whether a finding that was seen before is to be followed up again."""
        return tally.status == "unreproduced" and self._follow_ups.get(key, 0) < MAX_FOLLOW_UPS

    def follow_up(
        self, tally: FindingTally, key: str, script: Script, outcome: Outcome, against: Against = ALONE
    ) -> None:
        """Follow up a finding that ``script`` showed with ``outcome``, and fill in its tally; ``key`` is its name."""
        began = self._clock()
        status = self._statuses.setdefault(key, "suspect" if tally.status == "suspect" else "new")
        engine = against.engine or (lambda: self._engine)
        seen = first_seen(script, outcome, engine())
        self._follow_ups[key] = self._follow_ups.get(key, 0) + 1
        cause: Cause | None = None
        states = [seen]
        try:
            self._begin(key, seen)
            self._reproduce(key, states, engine)
            explain = functools.partial(self._explain, key, states[-1], against, suspect=status == "suspect")
            cause = self._stage("comparing", states[-1], explain)
            if cause is not None and cause.gone_with:
                caused = replace(states[-1].finding, gone_with=cause.gone_with)
                states.append(states[-1]._replace(finding=caused))
        finally:
            # This also runs on an interrupt, so that a finding is never lost.
            self._keep(tally, key, states[-1], cause, status)
            self.spent_s += self._clock() - began

    def _begin(self, key: str, seen: Investigated) -> None:
        """Put what is known of a finding on the disk, since a campaign may be killed at any moment."""
        try:
            self._out.begin(key, seen, suspect=self._statuses[key] == "suspect")
        except OSError as error:
            self._troubles.keep(None, error, "writing")

    def _reproduce(self, key: str, states: list[Investigated], engine: Callable[[], Engine]) -> None:
        """Minimise and confirm; the last of ``states`` is the finding as far as it is known, at any time.

        That is the minimal script, or the whole one if only that one reproduces.
        """
        seen = states[-1]

        def gain(so_far: Investigated) -> None:
            states.append(so_far)
            self._begin(key, so_far)

        states.append(self._stage("minimising", seen, lambda: self._minimise(seen, engine, gain)) or states[-1])
        small = states[-1]
        self._begin(key, small)
        states.append(self._stage("confirming", small, lambda: self._confirm(small, engine())) or small)
        if not states[-1].finding.tried:  # trouble came between
            states.append(self._stage("confirming", small, lambda: self._confirm(small, engine())) or small)
        small = states[-1]
        if small.finding.reproduced or not small.finding.reruns:
            return
        whole = self._stage("confirming", seen, lambda: self._confirm(seen, engine()))
        if whole is not None and (whole.finding.reproduced or not small.finding.tried):
            states.append(whole)

    def _keep(
        self, tally: FindingTally, key: str, seen: Investigated, cause: Cause | None, status: Literal["new", "suspect"]
    ) -> None:
        """``status``: of a finding that reproduces and is not explained."""
        finding = seen.finding
        if tally.status == "unreproduced" and not finding.reproduced:
            self._out.forget(key)
            return  # another sight that nothing has confirmed says no more than the first
        tally.finding = finding
        if finding.tried and not finding.reproduced:
            tally.status = "unreproduced"
            aside = self._written(lambda: Written(self._out.put_aside(key, finding)))
            tally.path = aside.path if aside is not None else None
            return
        known_cause = cause.reason if cause is not None and cause.is_known else None
        tally.status = status if known_cause is None else "known"
        tally.reason = cause.reason if cause is not None else tally.reason
        if (same := self._same.get(key)) is not None:
            tally.path = same  # its test is there already
            self._out.forget(key)
            return
        done = self._written(lambda: self._out.write(key, seen, known_cause=known_cause, suspect=status == "suspect"))
        tally.path = done.path if done is not None else None
        if done is not None:
            if known_cause is None and finding.gone_with:
                self._out.causes.add(finding.gone_with)
            self._on_event(Emitted(finding, done.path, done.beside))

    def _written(self, write: Callable[[], Written]) -> Written | None:
        """None where the disk takes no more; the summary then shows the script itself."""
        try:
            return write()
        except OSError as error:
            self._troubles.keep(None, error, "writing")
            return None

    def _stage(self, doing: str, seen: Investigated, work: Callable[[], Result]) -> Result | None:
        """Return the result of a stage; if it fails, record the trouble and return None."""
        try:
            return work()
        except Exception as error:
            self._troubles.keep(seen.finding.script, error, doing)
            self._restart()
            return None

    def _explain(self, key: str, seen: Investigated, against: Against, *, suspect: bool) -> Cause | None:
        if not seen.finding.reproduced:
            return None  # a finding that does not reproduce would be gone with any fix
        if (bug := against.fits(seen.outcome)) is not None:
            if self._out.has(bug):
                self._same[key] = bug
            self._on_event(Explained(seen.finding.signature, (bug,), by="face", suspect=suspect))
            return Cause(f"the minimal script has the face of the bug of {bug.name}, which has no fix")
        tests: tuple[Path, ...] = ()
        if self._triage is not None:
            tests = self._triage.explain(seen.finding)
            self._summary.unplayed_fixes |= self._triage.unplayed
        if self._triage is None or not tests:
            return self._twin(key, seen) if against is ALONE else None
        self.explained[key] = tests
        names = " and ".join(path.name for path in tests)
        fixes = tuple(dict.fromkeys(fix for path in tests for fix in self._triage.fixes[path]))
        each = {self._triage.fixes[path] for path in tests}
        is_found = fixes in self._out.causes or self._out.causes.issuperset(each)
        if self._triage.all_new and not is_found:
            return Cause(f"the bug of {names}: gone when that is mended", is_known=False, gone_with=fixes)
        self._on_event(Explained(seen.finding.signature, tests, suspect=suspect))
        return Cause(f"another face of the bug of {names}: gone when that is mended", gone_with=fixes)

    def _twin(self, key: str, seen: Investigated) -> Cause | None:
        path = twin_of(seen, self._others(key), self._engine)
        if path is None:
            return None
        self._on_event(Explained(seen.finding.signature, (path,), by="face"))
        return Cause(f"the bug of {path.name} on another kind of engine: its script shows the same here")

    def _others(self, key: str) -> Iterator[tuple[Finding, Path]]:
        """The findings of this campaign, and those that were found before, that nothing explains."""
        for other, tally in self._summary.findings.items():
            if other != key and tally.status == "new" and tally.finding is not None and tally.path is not None:
                yield tally.finding, tally.path
        for before in self._out.found:
            if before.finding is not None:
                yield before.finding, before.path

    def _minimise(
        self, seen: Investigated, engine: Callable[[], Engine], on_simpler: Callable[[Investigated], None]
    ) -> Investigated:
        found = seen.finding.signature
        self._on_event(Minimising(found, len(seen.finding.script.actions), self._max_runs))
        give_up = self._clock() + PATIENCE_S
        small = shrink(
            seen, lambda script: self._try(script, engine), max_runs=self._max_runs,
            stop=lambda: self._clock() > give_up, on_simpler=on_simpler,
        )  # fmt: skip
        self._on_event(Minimised(found, len(small.finding.script.actions), small.finding.reruns))
        return small

    def _try(self, script: Script, engine: Callable[[], Engine]) -> Outcome:
        """Play a candidate of the minimiser, which takes any `EngineError` for a candidate that cannot be played.

        An engine that broke would refuse all that follow, so that one is started anew.
        """
        engine().refuse(script.config)
        try:
            return engine().run(script)
        except ConfigNotBooted:
            raise
        except EngineError as error:
            self._troubles.keep(script, error, "minimising")
            self._restart()
            raise

    def _confirm(self, seen: Investigated, engine: Engine) -> Investigated:
        # The limit is in time, not in runs: where the scheduler is restarted for each run, that takes longer than the
        # script.
        give_up = self._clock() + PATIENCE_S
        seen = reproduce(seen, engine, stop=lambda: self._clock() >= give_up)
        self._on_event(Confirmed(seen.finding.signature, seen.finding.reproduced, seen.finding.tried))
        return seen
