"""The follower: the process that follows up what the searchers have seen, and the only writer of findings.

It minimises, confirms, compares with the known bugs and writes out, and looks again at hits of known signatures. It
also plays the canary, which needs another engine beside that of the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sr_fuzz.bugs.known import Known, script_of
from sr_fuzz.campaign.canary import CanaryWatch, StartCanary
from sr_fuzz.campaign.events import FindingTally, HistoryDone, Listener, Summary
from sr_fuzz.campaign.history import Histories, History, OpenOther
from sr_fuzz.campaign.out_folder import OutFolder, Unfinished
from sr_fuzz.campaign.resuming import Resuming
from sr_fuzz.campaign.search import Search
from sr_fuzz.campaign.sightings import Sightings
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.trouble import RESUMING, Troubles
from sr_fuzz.campaign.workers.messages import Beside, Counted, Handled, HistorySetup, PlayHistory, Sighted
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import Finding, signature
from sr_fuzz.outcome.files import finding_file, load
from sr_fuzz.script import EngineConfig, Script, ScriptError
from sr_fuzz.shrink.minimise import MAX_RUNS


class Follower:
    """Handles one message after the other; `handled` tells what is known by then."""

    def __init__(
        self,
        engine: Engine,
        out: Path,
        *,
        known: Known,
        triage: Triage,
        canary: StartCanary | None,
        troubles: Troubles,
        on_event: Listener,
        name_of: Callable[[EngineConfig], str],
        findings: dict[str, FindingTally],
        own_folders: bool = True,
        history: HistorySetup | None = None,
        open_other: OpenOther | None = None,
        script_of: Callable[[Path], Script | None] = script_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``findings``: what is known of the campaign's findings so far. ``open_other``: goes with ``history``."""
        self._troubles = troubles
        self._on_event = on_event
        self._clock = clock
        self._start = clock()
        self._engine = ResumedEngine(engine, lambda script, error: troubles.keep(script, error, RESUMING))
        self._summary = Summary(findings=findings)
        self._sent: dict[str, bytes] = {}
        fixes = [path for paths in triage.fixes.values() for path in paths]
        taken = [path for _, (path, _) in known.pairs()]
        self._out = OutFolder(out, self._engine, fixes=fixes, taken=taken, own_folders=own_folders)
        self._sightings = Sightings(
            self._engine, self._out, self._summary,
            known=known, troubles=troubles, restart=self._restart, on_event=on_event, triage=triage,
            max_runs=MAX_RUNS, script_of=script_of, name_of=name_of, clock=clock,
        )  # fmt: skip
        self._canary = (
            CanaryWatch(canary, self._summary, on_event=on_event, name_of=name_of, clock=clock) if canary else None
        )
        self._histories = (
            Histories(
                history.releases, history.trees, open_other, self._on_history, under_test=history.under_test
            )
            if history and open_other
            else None
        )

    def read(self) -> list[Unfinished]:
        """Read what is in the folder; returns what is unfinished there."""
        unfinished = self._out.read(lambda error: self._troubles.keep(None, error, "reading"))
        self._sightings.add_found_before()
        for path in dict.fromkeys(before.path for before in (*self._out.found, *self._out.suspects.values())):
            self._add_history(path)
        return unfinished

    @property
    def known(self) -> tuple[str, ...]:
        """The signatures of what was there."""
        return tuple(dict.fromkeys(before.signature for before in self._out.found))

    @property
    def found_before(self) -> int:
        """Number of tests that were there."""
        return self._out.number_of_files

    def resume(
        self,
        unfinished: list[Unfinished],
        time_s: float,
        *,
        is_stopped: Callable[[], bool] = lambda: False,
        on_next: Callable[[Unfinished], None] = lambda each: None,
    ) -> None:
        """Complete the findings of earlier campaigns, until time is up. ``on_next`` is called before each."""
        search = Search(
            self._engine, troubles=self._troubles, restart=self._restart, on_not_booted=lambda config, error: None
        )
        Resuming(
            search, self._sightings, self._out,
            troubles=self._troubles, restart=self._restart, on_event=self._on_event, on_next=on_next,
        ).resume(unfinished, lambda: self._clock() - self._start < time_s and not is_stopped())  # fmt: skip

    def _add_history(self, path: Path, *, just_found: bool = False) -> None:
        """Let the finding of a test wait for its history, unless it is a face of a known bug."""
        if self._histories is None or path.name != f"test_{path.parent.name}.py":
            return
        try:
            case = load(finding_file(path))
        except ScriptError:
            return  # somebody's test, without its finding
        if case.finding is not None and (case.test is None or case.test.known_cause is None):
            self._histories.add(case.finding, path.parent, just_found=just_found)

    def _on_history(self, finding: Finding, folder: Path, history: History) -> None:
        trees = tuple(tree.row for tree in history.trees)
        for tally in self._summary.findings.values():
            if tally.path is not None and tally.path.parent == folder:
                tally.releases, tally.trees, tally.commits = history.releases, trees, history.commits
        self._on_event(HistoryDone(finding.signature, history.releases, trees, history.commits))

    def handle(self, message: Sighted | Counted | Beside | PlayHistory) -> None:
        """Do what a message asks for."""
        if isinstance(message, PlayHistory):
            self._play_history()
        elif isinstance(message, Sighted):
            assert message.outcome.violation is not None
            found = signature(message.outcome.violation, message.script.config)
            self._sightings.take(found, message.script, message.outcome)
        elif isinstance(message, Counted):
            for found, hits in message.hits.items():
                self._sightings.count(found, hits)
        elif self._canary is not None:
            self._canary.look(message.script, message.outcome, message.elapsed_s)

    def _play_history(self) -> None:
        if not self._histories:
            return
        try:
            self._histories.play_next()
        except Exception as error:
            self._troubles.keep(None, error, "playing on another SGLang")

    def handled(self) -> Handled:
        """Return what has changed since the last time."""
        encoder = msgspec.json.Encoder(enc_hook=str)
        now = {key: encoder.encode(tally) for key, tally in self._summary.findings.items()}
        changed = {key: self._summary.findings[key] for key, data in now.items() if self._sent.get(key) != data}
        self._sent = now
        for tally in changed.values():
            if tally.status in ("new", "suspect") and tally.path is not None:
                self._add_history(tally.path, just_found=True)
        return Handled(
            changed, self._summary.canary, self._summary.unplayed_fixes, self._sightings.looked_s,
            self._sightings.followed_up_s, self._canary.spent_s if self._canary is not None else 0.0,
            len(self._histories) if self._histories is not None else 0,
        )  # fmt: skip

    def close(self) -> None:
        """End in order: what is unfinished is left to the next campaign."""
        with ExitStack() as closing:
            closing.callback(self._sightings.close)
            closing.callback(self._out.end)
            if self._canary is not None:
                closing.callback(self._canary.close)

    def _restart(self) -> None:
        """Start all engines anew; those beside the main one are made from it, so they end first."""
        try:
            if self._canary is not None:
                self._canary.close()
            self._sightings.close()
            self._engine.restart()
        except Exception as error:
            self._troubles.keep(None, error, "restarting")
