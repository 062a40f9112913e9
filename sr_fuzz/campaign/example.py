"""One known bug of the SGLang under test, played after a campaign: what a finding looks like, for who has seen none."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sr_fuzz.bugs.catalogue import KnownBug, shipped
from sr_fuzz.campaign.events import Summary
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Outcome, signature

# Where a request starts, the scheduler steps and something happens to the request: a reader sees a story in it.
_ACTIONS_OF_A_STORY = 3


class Example(msgspec.Struct, frozen=True):
    """A known bug and the run of its script."""

    path: Path
    bug: KnownBug
    outcome: Outcome
    shows: bool
    """Whether the run shows the bug."""
    open_bugs: int
    """Bugs on the list that this release has."""
    met: int
    """Of these, the ones that the campaign met."""
    verified: int
    """Of these, the ones whose fix made a hit go away."""


def play_example(engine: Engine, done: Summary) -> Example | None:
    """Play a known bug on ``engine``; None where the list has none that this engine can show.

    Raises `EngineError` when it cannot be played.
    """
    version = engine.sglang_version
    bugs = {path: bug for path, bug in shipped().items() if bug.is_open_in(version)}
    local = {path: bug for path, bug in bugs.items() if bug.engine == "local"}
    if not local:
        return None
    path = min(local, key=lambda path: _fitness(path, local[path]))
    bug = local[path]
    outcome = engine.run(bug.script)
    violation = outcome.violation
    shows = violation is not None and signature(violation, bug.script.config) in bug.shown_in(version)
    # Files that give one cause are about one bug.
    causes = {bug.reason for bug in bugs.values()}
    verified = causes & {cause for tally in done.known for cause in tally.causes}
    met = verified | causes & {tally.reason for tally in done.known}
    return Example(path, bug, outcome, shows, len(causes), len(met), len(verified))


def _fitness(path: Path, bug: KnownBug) -> tuple[bool, int, str]:
    """The shortest script that tells a story, the first by name; the same one each time."""
    actions = len(bug.script.actions)
    return actions < _ACTIONS_OF_A_STORY, actions, path.name
