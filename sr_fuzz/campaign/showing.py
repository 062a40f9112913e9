"""Whether one SGLang shows a finding: the verdict on a point of its history, see `sr_fuzz.campaign.bisection`."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TypeVar

import msgspec

from sr_fuzz.bugs.catalogue import KnownBug, read_bug
from sr_fuzz.bugs.known import emitted_in
from sr_fuzz.campaign.bisection import SHOWS, SILENT, Verdict
from sr_fuzz.campaign.known_hits import UNPLAYABLE
from sr_fuzz.campaign.triage import clean_runs
from sr_fuzz.engine.around.differential import compared
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding, Outcome, signature
from sr_fuzz.outcome.files import Case, finding_beside, named
from sr_fuzz.script import EngineConfig, Script, ScriptError
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.wording import first_and_last, one_line

_Done = TypeVar("_Done")

_LONGEST = 400
"""Most characters of an engine's error; most name a path, and say at their end what is wrong with it."""


class Wanted(msgspec.Struct, frozen=True):
    """What is looked for: a script, and the violation that it is known to show."""

    script: Script
    signature: str
    bug: KnownBug | None = None
    """The known bug that it is, with its other signatures."""
    also_seen_as: tuple[str, ...] = ()
    """Other signatures that a user's test names; ``*`` stands for anything."""
    runs: int = 1
    """How many runs without it say that it does not show."""

    @property
    def rule(self) -> str:
        """``invariant:rule``, which an SGLang whose functions have other names breaks as well."""
        return ":".join(self.signature.split(":")[:2])

    def matches(self, found: str, sglang_version: str) -> bool:
        """Whether a violation with that signature is the one that is looked for."""
        known = self.bug.shown_in(sglang_version) if self.bug is not None else ()
        names = (self.signature, *self.also_seen_as, *known)
        return found.startswith(f"{self.rule}:") or any(fnmatchcase(found, name) for name in names)


def wanted_of(finding: Finding) -> Wanted:
    """What is looked for in other releases after a campaign's finding."""
    return Wanted(finding.script, finding.signature, runs=clean_runs(finding))


def wanted_in(case: Case, runs: int | None = None) -> Wanted:
    """What a file asks for. ``runs``: how many clean ones are asked for; None for what its reliability asks for.

    Raises `ScriptError`, one line, for a script that does not say what it breaks.
    """
    if case.signature is None:
        path = named(case.path)
        raise ScriptError(f"{path}: it does not say what it breaks; `sr-fuzz minimise --out FINDING.json` finds out")
    is_test = case.path.suffix == ".py"
    finding = finding_beside(case.path) if is_test else case.finding
    clean = runs or (clean_runs(finding) if finding is not None else 1)
    if is_test:
        others = (found for path, found, _ in emitted_in(case.path.parent) if path == case.path)
        return Wanted(case.script, case.signature, also_seen_as=tuple(next(others, ())), runs=clean)
    bug = read_bug(case.path) if finding is None else None
    return Wanted(case.script, case.signature, bug, runs=clean)


def judge(engine: Engine, wanted: Wanted) -> Verdict:
    """Play the script on ``engine`` until it shows what is wanted, at most ``wanted.runs`` times.

    An error of the engine is a verdict too. What may have come from outside is tried once more after a restart.
    """
    config = wanted.script.config
    try:
        if engine.isolation == "fresh":  # the schedulers of the others import SGLang each for itself, when they boot
            engine.sglang_version
    except EngineError as error:
        return Verdict("does not boot", _told(error))
    try:
        _at_most_twice(engine, lambda: engine.start(config))
    except EngineError as error:
        return _not_booted(engine, config, error)
    try:
        return _at_most_twice(engine, lambda: _play(compared(engine.fresh(), wanted.signature), wanted))
    except UNPLAYABLE as error:
        return Verdict("cannot be expressed", _told(error))
    except EngineError as error:
        return Verdict("trouble", _told(error))


def _at_most_twice(engine: Engine, do: Callable[[], _Done]) -> _Done:
    try:
        return do()
    except UNPLAYABLE:
        raise
    except EngineError:
        engine.restart()
        return do()


def _play(engine: Engine, wanted: Wanted) -> Verdict:
    other: Verdict | None = None
    for run in range(1, wanted.runs + 1):
        outcome = engine.run(wanted.script)
        if outcome.violation is None:
            continue
        found = signature(outcome.violation, wanted.script.config)
        if wanted.matches(found, outcome.sglang_version):
            return Verdict(SHOWS, _seen(outcome), found, run)
        other = Verdict("shows something else", _seen(outcome), found, run)
    # A run that left something out, or ended before its time, says nothing about what it might have shown.
    gap = _gap(outcome, wanted)
    if gap is not None:
        return Verdict("cannot be expressed", gap, other.signature if other is not None else None, wanted.runs)
    return other or Verdict(SILENT, _silent(outcome, wanted), None, wanted.runs)


def _gap(outcome: Outcome, wanted: Wanted) -> str | None:
    """Why a run cannot have shown what is wanted; None where it could."""
    for action, why in outcome.not_played.items():
        return f"{action} was not played: {why}"
    invariant = wanted.signature.partition(":")[0]
    why = outcome.not_checked.get(invariant) or outcome.no_subject.get(invariant)
    return f"{invariant} was not checked: {why}" if why is not None else None


def _silent(outcome: Outcome, wanted: Wanted) -> str:
    coarse = outcome.coarse.get(wanted.signature.partition(":")[0])
    part = f"; checked in part: {coarse}" if coarse is not None else ""
    times = f", {wanted.runs} times" if wanted.runs > 1 else ""
    return f"no violation in {outcome.steps} steps{times}{part}"


def _seen(outcome: Outcome) -> str:
    violation = outcome.violation
    assert violation is not None
    place = f", in {violation.location[0].partition(': ')[0]}" if violation.location else ""
    return one_line(f"{violation.invariant}: {violation.rule}{place}: {violation.message}")


def _not_booted(engine: Engine, config: EngineConfig, error: EngineError) -> Verdict:
    """Tell an SGLang without this configuration, or for which a fault was not made, from one that boots with none."""
    plain = EngineConfig()
    if config != plain or engine.faults:
        try:
            with engine.with_faults() as without:
                without.start(plain)
            return Verdict("cannot be expressed", _told(error))
        except EngineError as failed:
            return Verdict("does not boot", _told(failed))
    return Verdict("does not boot", _told(error))


def _told(error: EngineError) -> str:
    return one_line(first_and_last(str(error)), _LONGEST)
