"""The events that a campaign sends while it runs, all immutable, and the summary at its end.

A listener is any callable that takes an event. The campaign depends on no terminal and no file format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from sr_fuzz.campaign.bisection import Bisection, Row
from sr_fuzz.outcome import Finding, Violation


class _Event(msgspec.Struct, frozen=True, tag=True, tag_field="kind"):
    """The base of all events: the name of its class tells one from another when it is encoded."""


class Started(_Event, frozen=True):
    """The campaign begins. ``time_s`` is the budget in seconds."""

    sglang_version: str
    seed: int
    time_s: float
    max_scripts: int | None
    out: Path
    known: int
    """Signatures on the known list."""
    sglang_tree: str | None = None
    """Folder of the source tree under test."""
    found_before: int = 0
    """Findings that earlier campaigns have left in ``out``."""


class NotStarted(_Event, frozen=True):
    """No campaign could start on an SGLang; no other event of it follows."""

    sglang: str
    """As it was asked for."""
    why: str


class Resumed(_Event, frozen=True):
    """A finding that an earlier campaign could not follow up to its end was played again, before the search."""

    path: Path
    shows: bool
    """Whether its script still shows it."""


class ScriptDone(_Event, frozen=True):
    """A script has run. ``elapsed_s`` counts from the start of the campaign; ``wall_s`` is the time of this run."""

    config: str
    steps: int
    forwards: int
    wall_s: float
    elapsed_s: float
    signature: str | None = None


class FindingNew(_Event, frozen=True):
    """A violation whose signature is neither on the known list nor seen before in this campaign, or a suspect."""

    signature: str
    violation: Violation
    config: str
    actions: int
    suspect: bool = False
    """Whether its signature is known, and its cause perhaps is not."""


class FindingKnown(_Event, frozen=True):
    """A violation was seen again. ``reason`` comes from the known list; it is None for one found in this campaign."""

    signature: str
    reason: str | None = None


class Minimising(_Event, frozen=True):
    """The script of a new finding is about to be shrunk, with at most ``max_runs`` runs."""

    signature: str
    actions: int
    max_runs: int


class Minimised(_Event, frozen=True):
    """The script of the new finding has been shrunk."""

    signature: str
    actions: int
    runs: int


class Confirmed(_Event, frozen=True):
    """The minimal script was run again ``tried`` times and showed the finding ``reproduced`` times."""

    signature: str
    reproduced: int
    tried: int


class Explained(_Event, frozen=True):
    """The finding is a known bug after all, or several: those of ``tests``, files of the known list."""

    signature: str
    tests: tuple[Path, ...]
    by: Literal["fix", "face"] = "fix"
    """``fix``: it is gone when they are fixed. ``face``: they have no fix, and their violation looks the same."""
    suspect: bool = False
    """Whether the finding was a suspect."""


class Emitted(_Event, frozen=True):
    """The repro has been written."""

    finding: Finding
    path: Path
    beside: Path | None = None
    """The test that would have been replaced, and stays because somebody has edited it."""


class HistoryDone(_Event, frozen=True):
    """A finding was played on other SGLangs; see `sr_fuzz.campaign.history`."""

    signature: str
    releases: Bisection
    trees: tuple[Row, ...] = ()
    """Source trees and wheels, by their folders."""
    commits: Bisection | None = None
    """Over the commits of a source tree that shows it, after the newest release without it."""


class Trouble(msgspec.Struct):
    """One kind of trouble: an error that kept scripts from being played or followed up and is no fault of SGLang."""

    what: str
    """The first line of the error."""
    doing: str
    """The stage of the campaign: ``playing``, ``minimising`` …"""
    count: int = 0
    path: Path | None = None
    """The first script that met it; the traceback is written beside it as ``.txt``."""


class TroubleMet(_Event, frozen=True):
    """A script could not be played, or a finding could not be followed up. The campaign continues."""

    what: str
    doing: str
    path: Path | None
    first: bool
    """Whether it is the first of its kind."""


Verdict = Literal["found", "blind", "undecided"]


class CanaryPlayed(_Event, frozen=True):
    """A script was played on the engine with the canary fault; counts are those of its configuration so far.

    The run is not counted as a script of the campaign; ``wall_s`` is the time it took, including a boot.
    """

    config: str
    verdict: Verdict
    scripts: int
    wall_s: float
    found_by: str = ""
    why_blind: str = ""


# Most scripts have a request that triggers the canary, so fifty scripts without one are no accident. Its effect is
# visible in the same step, so one script in which it was triggered and not seen is suspicious, and two are proof.
_MUST_STRIKE = 50
_MUST_BE_SEEN = 2


class CanaryTally(msgspec.Struct):
    """The result of the canary on one configuration."""

    scripts: int = 0
    """Scripts played with the canary fault, including the one that showed it."""
    triggered: int = 0
    """Scripts in which it was triggered."""
    found_by: str = ""
    """``invariant: rule`` of the violation, once the canary is found."""
    failures: int = 0
    """Scripts that could not be played on the faulty engine."""
    problem: str = ""
    """Why the canary could not be played."""

    @property
    def verdict(self) -> Verdict:
        if self.found_by:
            return "found"
        missed = self.triggered >= _MUST_BE_SEEN or self.scripts >= _MUST_STRIKE
        return "blind" if self.problem or missed else "undecided"

    @property
    def why_blind(self) -> str:
        """Why the campaign is blind on this configuration; empty when it is not."""
        if self.verdict != "blind":
            return ""
        if self.problem:
            return f"it could not be played: {self.problem}"
        if self.triggered:
            return f"it struck in {self.triggered} of {self.scripts} scripts, and no invariant saw it"
        return f"it never struck in {self.scripts} scripts"


class Gap(msgspec.Struct):
    """Something that some scripts left out for one reason: an invariant or a part of it, an action, or a count."""

    what: str
    reason: str
    scripts: int = 0
    configs: list[str] = []
    """Names of the configurations of those scripts."""


class ConfigTally(msgspec.Struct):
    """The runs on one configuration. ``wall_s`` is their total time, in seconds."""

    scripts: int = 0
    steps: int = 0
    forwards: int = 0
    violations: int = 0
    wall_s: float = 0.0


class FindingTally(msgspec.Struct):
    """One signature: how often it was seen, and what is known about it."""

    status: Literal["new", "known", "suspect", "unreproduced"]
    """``unreproduced``: no fresh run showed it, so it is listed and not written as a test. Also ``known`` when the
    finding turned out to be another face of a known bug."""
    violation: Violation
    count: int = 1
    path: Path | None = None
    """The repro, or the file on the known list."""
    reason: str = ""
    """The reason from the known list, or the known bug of which this is another face."""
    finding: Finding | None = None
    """The finding itself; set for a new one only."""
    asked: int = 0
    """Of a known signature: hits that were played with the known bugs fixed, suspects left out."""
    verified: int = 0
    """Of these, the hits that were gone with the fix of a known bug, so that it is their cause."""
    fitted: int = 0
    """Besides them, the hits with the face of a known bug that has no fix."""
    releases: Bisection | None = None
    """Of a new one that was played on other SGLangs: which of them show it."""
    trees: tuple[Row, ...] = ()
    commits: Bisection | None = None
    causes: dict[str, int] = {}
    """How many of these hits each known bug explains, by its reason."""


class Summary(msgspec.Struct):
    """The result of a campaign. Times are in seconds."""

    elapsed_s: float = 0.0
    search_s: float = 0.0
    """``elapsed_s`` without the time for minimising, confirming and writing; the script rate is based on this."""
    scripts: int = 0
    steps: int = 0
    forwards: int = 0
    configs: dict[str, ConfigTally] = {}
    findings: dict[str, FindingTally] = {}
    """The findings by signature, in the order of their first appearance."""
    waiting: dict[str, int] = {}
    """Violations of signatures that nobody knows and that the campaign ended before following up, by the signature."""
    uncounted: int = 0
    """Violations of other signatures that it did not come to."""
    checks: dict[str, int] = {}
    """How often each invariant was checked."""
    not_checked: list[Gap] = []
    """Invariants that could not be checked on some configurations."""
    not_played: list[Gap] = []
    """Kinds of action that need a name that this SGLang lacks."""
    not_counted: list[Gap] = []
    """Parts of `reach` that need a name that this SGLang lacks."""
    coarse: list[Gap] = []
    """Invariants of which only a part was checked on some configurations."""
    no_subject: dict[str, str] = {}
    """Invariants that have no subject on any configuration played, with the reason."""
    unplayed_fixes: dict[str, str] = {}
    """Fixes that could not be played, with the reason. Findings that they would explain are reported as new."""
    canary: dict[str, CanaryTally] = {}
    """The canary's result by configuration; empty when no canary was played."""
    reach: dict[str, int] = {}
    """How often each kind of `sr_fuzz.play.reach_kinds` was reached."""
    never_reached: list[str] = []
    """Kinds that could occur on one of the configurations but never did; empty where nothing was counted."""
    troubles: list[Trouble] = []
    """Errors that are no fault of SGLang, by kind."""
    gave_up: str = ""
    """Why the campaign ended before its time was up; empty when it did not."""
    interrupted: bool = False

    @property
    def blind(self) -> dict[str, CanaryTally]:
        """Configurations on which the canary was not found although it should have been."""
        return {name: tally for name, tally in self.canary.items() if tally.verdict == "blind"}

    @property
    def scripts_per_s(self) -> float:
        return self.scripts / self.search_s if self.search_s > 0 else 0.0

    @property
    def new(self) -> list[FindingTally]:
        return [tally for tally in self.findings.values() if tally.status == "new"]

    @property
    def suspects(self) -> list[FindingTally]:
        return [tally for tally in self.findings.values() if tally.status == "suspect"]

    @property
    def unreproduced(self) -> list[FindingTally]:
        return [tally for tally in self.findings.values() if tally.status == "unreproduced"]

    @property
    def known(self) -> list[FindingTally]:
        """Those of which a hit is left that no second look has made a suspect."""
        return [tally for tally in self.findings.values() if tally.status == "known" and tally.count > 0]


class Finished(_Event, frozen=True):
    """The campaign is over."""

    summary: Summary
    out: Path


Event = (
    Started
    | NotStarted
    | Resumed
    | ScriptDone
    | FindingNew
    | FindingKnown
    | Minimising
    | Minimised
    | Confirmed
    | Explained
    | Emitted
    | HistoryDone
    | CanaryPlayed
    | TroubleMet
    | Finished
)

Listener = Callable[[Event], None]
