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
from sr_fuzz.campaign.events import FindingTally, Listener, Summary
from sr_fuzz.campaign.out_folder import OutFolder, Unfinished
from sr_fuzz.campaign.resuming import Resuming
from sr_fuzz.campaign.search import Search
from sr_fuzz.campaign.sightings import Sightings
from sr_fuzz.campaign.triage import Triage
from sr_fuzz.campaign.trouble import RESUMING, Troubles
from sr_fuzz.campaign.workers.messages import Beside, Counted, Handled, Sighted
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.outcome import signature
from sr_fuzz.script import EngineConfig, Script
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
        script_of: Callable[[Path], Script | None] = script_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``findings``: what is known of the campaign's findings so far."""
        self._troubles = troubles
        self._on_event = on_event
        self._clock = clock
        self._start = clock()
        self._engine = ResumedEngine(engine, lambda script, error: troubles.keep(script, error, RESUMING))
        self._summary = Summary(findings=findings)
        self._sent: dict[str, bytes] = {}
        fixes = [path for paths in triage.fixes.values() for path in paths]
        taken = [path for _, (path, _) in known.pairs()]
        self._out = OutFolder(out, self._engine, fixes=fixes, taken=taken, own_folders=True)
        self._sightings = Sightings(
            self._engine, self._out, self._summary,
            known=known, troubles=troubles, restart=self._restart, on_event=on_event, triage=triage,
            max_runs=MAX_RUNS, script_of=script_of, name_of=name_of, clock=clock,
        )  # fmt: skip
        self._canary = (
            CanaryWatch(canary, self._summary, on_event=on_event, name_of=name_of, clock=clock) if canary else None
        )

    def read(self) -> list[Unfinished]:
        """Read what is in the folder; returns what is unfinished there."""
        unfinished = self._out.read(lambda error: self._troubles.keep(None, error, "reading"))
        self._sightings.add_found_before()
        return unfinished

    @property
    def found_before(self) -> int:
        """Number of tests that were there."""
        return self._out.number_of_files

    def resume(self, unfinished: list[Unfinished], time_s: float) -> None:
        """Complete the findings of earlier campaigns, until time is up."""
        search = Search(
            self._engine, troubles=self._troubles, restart=self._restart, on_not_booted=lambda config, error: None
        )
        Resuming(
            search, self._sightings, self._out,
            troubles=self._troubles, restart=self._restart, on_event=self._on_event,
        ).resume(unfinished, lambda: self._clock() - self._start < time_s)  # fmt: skip

    def handle(self, message: Sighted | Counted | Beside) -> None:
        """Do what a message asks for."""
        if isinstance(message, Sighted):
            assert message.outcome.violation is not None
            found = signature(message.outcome.violation, message.script.config)
            self._sightings.take(found, message.script, message.outcome)
        elif isinstance(message, Counted):
            for found, hits in message.hits.items():
                self._sightings.count(found, hits)
        elif self._canary is not None:
            self._canary.look(message.script, message.outcome, message.elapsed_s)

    def handled(self) -> Handled:
        """Return what has changed since the last time."""
        encoder = msgspec.json.Encoder(enc_hook=str)
        now = {key: encoder.encode(tally) for key, tally in self._summary.findings.items()}
        changed = {key: self._summary.findings[key] for key, data in now.items() if self._sent.get(key) != data}
        self._sent = now
        return Handled(
            changed, self._summary.canary, self._summary.unplayed_fixes, self._sightings.looked_s,
            self._sightings.followed_up_s, self._canary.spent_s if self._canary is not None else 0.0,
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
