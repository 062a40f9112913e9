"""What a campaign does with the violations that it sees.

A sighting of a new signature is followed up; one of a known signature is counted, and looked at again now and then,
since another bug may have that signature as well.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sr_fuzz.bugs.known import Known, script_of
from sr_fuzz.campaign.events import FindingKnown, FindingNew, FindingTally, Listener, Summary
from sr_fuzz.campaign.known_hits import KnownHits, Look
from sr_fuzz.campaign.out_folder import OutFolder, Unfinished
from sr_fuzz.campaign.pipeline import ALONE, Against, Pipeline
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.trouble import Troubles
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.text import config_text
from sr_fuzz.shrink.minimise import MAX_RUNS

# A campaign searches; looking again at what it knows may take one fifth of its time, after the first minute. On the
# server engine a fix is another server, which takes half a minute to start.
_LOOK_SHARE = 0.2
_LOOK_FIRST_S = 60.0


class Sightings:
    """The findings of one campaign so far: what is known, what was new, and what each sighting is taken for."""

    def __init__(
        self,
        engine: Engine,
        out: OutFolder,
        summary: Summary,
        *,
        known: Mapping[str, tuple[Path, str]],
        troubles: Troubles,
        restart: Callable[[], None],
        on_event: Listener,
        triage: Triage | None = None,
        max_runs: int = MAX_RUNS,
        script_of: Callable[[Path], Script | None] = script_of,
        name_of: Callable[[EngineConfig], str] = config_text,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``restart``: starts all engines of the campaign anew. The others are those of `run_campaign`."""
        self._out = out
        self._summary = summary
        self._known = Known(known.pairs() if isinstance(known, Known) else known.items())  # a copy, which grows
        self._troubles = troubles
        self._restart = restart
        self._on_event = on_event
        self._name_of = name_of
        self._clock = clock
        self._start = clock()
        self._hits = KnownHits(engine, triage.fixes, script_of) if triage is not None else None
        self._pipeline = Pipeline(
            engine, out, summary,
            troubles=troubles, triage=triage, max_runs=max_runs, on_event=on_event, clock=clock, restart=restart,
        )  # fmt: skip
        self.looked_s = 0.0
        """Time spent on looking again at known signatures, in seconds."""

    @property
    def followed_up_s(self) -> float:
        """Time spent on following up new findings, in seconds."""
        return self._pipeline.spent_s

    def add_found_before(self) -> None:
        """Make known what earlier campaigns have found and left in the folder: bugs without a fix."""
        for found in self._out.found:
            if found.signature in self._summary.findings:
                continue  # this campaign's own, and a process of it was started anew
            self._known.add(found.signature, (found.path, found.reason))

    def resume(self, unfinished: Unfinished, outcome: Outcome) -> bool:
        """Take a violation that an earlier campaign has seen and not followed up to its end.

        ``outcome``: of a run with the fixes with which it was seen then. Returns whether it is followed up now, or told
        to be a known bug; what only has the signature of one (the earlier campaign may not have known it) is neither.
        """
        case, fixes = unfinished
        assert case.signature is not None
        look = Look("suspect", outcome, fixes=fixes)
        is_known = not fixes and bool(self._known.candidates(case.signature))
        if case.suspect:
            self._suspect(case.signature, case.script, look)
        elif fixes:
            self._masked(case.script, look)
        else:
            self.take(case.signature, case.script, outcome)
        if not is_known or case.suspect or self._hits is None:  # without it, a signature alone tells a known bug
            return True
        told = self._look_again(self._summary.findings[case.signature], case.signature, case.script, outcome)
        return told is not None and told.verdict != "unverified"

    def engine_with(self, fixes: tuple[str, ...]) -> Engine:
        """The engine under test with these fixes of known bugs."""
        if self._hits is None:
            raise ValueError("fixes are played with a triage only")
        return self._hits.engine_with(fixes)

    def close(self) -> None:
        """End the engines on which known bugs are fixed."""
        if self._hits is not None:
            self._hits.close()

    def take(self, found: str, script: Script, outcome: Outcome) -> None:
        """Count a violation of that signature, and follow it up where that is due."""
        assert outcome.violation is not None
        tally, bugs = self._summary.findings.get(found), self._known.candidates(found)
        if tally is not None:
            tally.count += 1
            self._on_event(FindingKnown(found, tally.reason if tally.status == "known" else None))
            if self._pipeline.is_due(tally, found):
                self._follow_up(found, tally, script, outcome)
        elif bugs:
            path, reason = bugs[0]
            tally = self._summary.findings[found] = FindingTally("known", outcome.violation, path=path, reason=reason)
            self._on_event(FindingKnown(found, reason))
        else:
            self._new(found, FindingTally("new", outcome.violation), script, outcome)
        if tally is not None and bugs and self._may_look(found, outcome):
            self._look_again(tally, found, script, outcome)

    def count(self, found: str, hits: int) -> None:
        """Count more violations of a signature that was taken before."""
        tally = self._summary.findings.get(found)
        if tally is not None:
            tally.count += hits

    def _new(
        self, key: str, tally: FindingTally, script: Script, outcome: Outcome, against: Against = ALONE
    ) -> None:
        self._summary.findings[key] = tally
        suspect = tally.status == "suspect"
        before = self._out.suspects.get(signature(tally.violation, script.config)) if suspect else None
        if before is not None:
            tally.status, tally.path, tally.reason = "known", before.path, before.reason
            self._on_event(FindingKnown(key, before.reason))
            return
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
        return self.looked_s <= _LOOK_FIRST_S + _LOOK_SHARE * (self._clock() - self._start)

    def _look_again(self, tally: FindingTally, found: str, script: Script, outcome: Outcome) -> Look | None:
        """Ask of a hit of a known signature whether it is one of the known bugs with that signature.

        None where the answer met trouble.
        """
        assert self._hits is not None
        began = self._clock()
        bugs = self._known.candidates(found)
        try:
            look = self._hits.look(found, [path for path, _ in bugs], script, outcome)
        except Exception as error:
            self._troubles.keep(script, error, "verifying")
            self._restart()  # what broke may be what all engines of the campaign share
            return None
        finally:
            self._summary.unplayed_fixes |= self._hits.unplayed
            self.looked_s += self._clock() - began
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
            return look
        tally.asked += look.verdict != "fits" and bool(look.fixes)
        if look.verdict == "masked":
            self._masked(script, look)
        return look

    def _suspect(self, found: str, script: Script, look: Look) -> None:
        """A hit that is there although the known bugs of its signature are fixed, or that has not their face."""
        assert self._hits is not None and look.outcome.violation is not None
        hits, bugs = self._hits, [path for path, _ in self._known.candidates(found)]
        against = Against(
            functools.partial(hits.engine_with, look.fixes), functools.partial(hits.same_face, found, bugs)
        )
        key = self._suspect_key(found)
        tally = self._summary.findings.get(key)
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
        findings = self._summary.findings.items()
        # One that was found before has not been followed up: it is the same one each time.
        closed = {key for key, tally in findings if tally.status == "known" and tally.finding is not None}
        return next(key for key in keys if key not in closed)

    def _masked(self, script: Script, look: Look) -> None:
        """A violation that shows only when a known bug before it is fixed: it is news if its signature is."""
        assert self._hits is not None and look.outcome.violation is not None
        behind = signature(look.outcome.violation, script.config)
        against = Against(functools.partial(self._hits.engine_with, look.fixes))
        tally = self._summary.findings.get(behind)
        if tally is not None and self._pipeline.is_due(tally, behind):
            self._follow_up(behind, tally, script, look.outcome, against)
        if tally is None and not self._known.candidates(behind):
            self._new(behind, FindingTally("new", look.outcome.violation), script, look.outcome, against)
