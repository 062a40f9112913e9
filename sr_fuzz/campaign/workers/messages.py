"""Messages between a campaign and its processes: typed, tagged structs, which `codec` makes JSON of.

::

    campaign --(SearcherSetup; Round …, Stop)--> searcher    --(Ready; Played …, RoundDone)--> campaign
    campaign --(FollowerSetup; Sighted …, Stop)--> follower  --(Ready; Told …, Handled)-----> campaign

A setup says where things are on this machine. All that follows it has paths that are relative to that.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from sr_fuzz.campaign.events import CanaryTally, Event, FindingTally
from sr_fuzz.outcome import Outcome
from sr_fuzz.script import EngineConfig, Script

FORMAT = 1
"""Format version; raised whenever an old message would be read with another meaning. A setup carries it."""


class _Message(msgspec.Struct, frozen=True, tag=True, tag_field="kind"):
    """The base of all messages: the name of its class tells one from another."""


class EngineSetup(msgspec.Struct, frozen=True):
    """The engine of a process: as `sr_fuzz.engine.options.make_engine` takes it."""

    sys_path: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    limit_s: float | None = None


# -- to a process ----------------------------------------------------------------------------------------------


class SearcherSetup(_Message, frozen=True):
    """The first message to a searcher."""

    engine: EngineSetup
    configs: dict[str, EngineConfig]
    exhausters: bool | None = None
    format: int = FORMAT


class HistorySetup(msgspec.Struct, frozen=True):
    """On which SGLangs findings are played, see `sr_fuzz.campaign.history`."""

    releases: tuple[str, ...]
    """Oldest first."""
    trees: tuple[str, ...] = ()
    """Folders of source trees and wheels for an engine's path."""
    under_test: str | None = None
    """Which of them the campaign searches."""
    path: tuple[str, ...] = ()
    """What follows the folder of a release or tree on an engine's path."""


class FollowerSetup(_Message, frozen=True):
    """The first message to the follower."""

    engine: EngineSetup
    configs: dict[str, EngineConfig]
    out: Path
    """The folder of the findings."""
    own_folders: bool
    """Whether each test gets a folder of its own there."""
    time_s: float
    """What is unfinished from earlier campaigns is taken up within this time."""
    known: Path | None = None
    all_new: bool = False
    canary: bool = True
    findings: dict[str, FindingTally] = {}
    """Those of the campaign so far: the follower is not its first one."""
    skip: tuple[str, ...] = ()
    """Signatures that are not taken up: following them up has killed the campaign's followers."""
    history: HistorySetup | None = None
    format: int = FORMAT


class Round(_Message, frozen=True):
    """Play a round of scripts."""

    number: int
    seed: int
    configs: tuple[str, ...]
    """Names of the configurations to draw from."""
    count: int
    played: tuple[str, ...] = ()
    """Hashes of scripts that other searchers have played since the last round of this one."""


class Sighted(_Message, frozen=True):
    """A violation to be counted, and to be followed up where that is due."""

    script: Script
    outcome: Outcome


class Counted(_Message, frozen=True):
    """More violations of signatures that have been sighted before, by signature; they are only counted."""

    hits: dict[str, int]


class Beside(_Message, frozen=True):
    """A script to be played on the engine with the canary. ``elapsed_s``: since the start of the campaign."""

    script: Script
    outcome: Outcome
    elapsed_s: float


class PlayHistory(_Message, frozen=True):
    """Play a finding on one more SGLang: nothing else is to be done."""


class Stop(_Message, frozen=True):
    """End in order."""


# -- from a process --------------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """The engine has started."""

    sglang_version: str
    sglang_tree: str | None
    found_before: int = 0
    """Of the follower: findings that earlier campaigns have left."""
    known: tuple[str, ...] = ()
    """Their signatures."""


class CannotStart(_Message, frozen=True):
    """The engine does not start, or the process cannot go on; it ends."""

    message: str


class Played(_Message, frozen=True):
    """A script was played. The outcome has its trace where something was violated."""

    number: int
    """Of the round."""
    script: Script
    outcome: Outcome
    cells: tuple[str, ...]
    motifs: tuple[str, ...] = ()
    """From which the script was made."""


class NotBooted(_Message, frozen=True):
    """No scheduler could be booted with a configuration; its scripts are left out."""

    config: EngineConfig
    message: str


class Met(_Message, frozen=True):
    """Trouble: ``what`` is one line, ``told`` a traceback."""

    script: Script | None
    what: str
    told: str
    doing: str


class RoundDone(_Message, frozen=True):
    """The round came to its end, or the search has given up."""

    number: int
    gave_up: str = ""


class Taken(_Message, frozen=True):
    """What is unfinished from before with that signature is about to be followed up."""

    found: str


class Told(_Message, frozen=True):
    """What happened while a finding was followed up."""

    event: Event


class Handled(_Message, frozen=True):
    """The last message was handled; the first one says that what was unfinished before has been.

    Each field is as it is now. Times are in seconds since the follower has started.
    """

    findings: dict[str, FindingTally]
    canary: dict[str, CanaryTally]
    unplayed_fixes: dict[str, str]
    looked_s: float
    followed_up_s: float
    canary_s: float
    histories: int = 0
    """Findings whose history is to be played."""


ToProcess = SearcherSetup | FollowerSetup | Round | Sighted | Counted | Beside | PlayHistory | Stop
FromProcess = Ready | CannotStart | Played | NotBooted | Met | RoundDone | Taken | Told | Handled
