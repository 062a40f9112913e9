"""The night: a campaign of several processes on one store.

Searchers play rounds of scripts, the follower follows up what they see, and this process counts, decides who does what,
and tells its listeners. A searcher never waits for the follower.
"""

from __future__ import annotations

import datetime
import selectors
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from sr_fuzz.bugs.known import Known
from sr_fuzz.campaign.backlog import Backlog, Waiting
from sr_fuzz.campaign.counts import Counts
from sr_fuzz.campaign.events import FindingTally, Finished, Listener, ScriptDone, Started, Summary
from sr_fuzz.campaign.known_hits import face
from sr_fuzz.campaign.order import Order
from sr_fuzz.campaign.out_folder import OutFolder
from sr_fuzz.campaign.record import Night, Origin
from sr_fuzz.campaign.rounds import Rounds
from sr_fuzz.campaign.store import Store, Unstored
from sr_fuzz.campaign.trouble import MAX_IN_A_ROW, TroubleLog
from sr_fuzz.campaign.workers.handles import StartProcess, Worker, start_process
from sr_fuzz.campaign.workers.messages import (
    Beside,
    CannotStart,
    Counted,
    EngineSetup,
    FollowerSetup,
    FromProcess,
    Handled,
    HistorySetup,
    Met,
    NotBooted,
    Played,
    PlayHistory,
    Ready,
    RoundDone,
    SearcherSetup,
    Sighted,
    Stop,
    Taken,
    Told,
)
from sr_fuzz.outcome import signature
from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.text import config_text
from sr_fuzz.shrink.finding_steps import first_seen

SAVE_EVERY_S = 60.0
"""What a kill can take away of the state; findings are written at once."""

_TICK_S = 0.5

# A searcher ends after the script that it plays, the follower after what it follows up: three stages of a minute each,
# and a boot before each of them on a busy machine.
_SEARCHER_ENDS_S = 60.0
_FOLLOWER_ENDS_S = 600.0

_MOST_KILLED = 2
"""Followers that may be lost over one finding: a third one would be, too."""


class Options(msgspec.Struct, frozen=True):
    """What is searched, and how."""

    configs: dict[str, EngineConfig]
    engine: EngineSetup
    seed: int
    time_s: float
    workers: int
    known: Known
    """Of the release under test."""
    known_folder: Path | None = None
    all_new: bool = False
    canary: bool = True
    exhausters: bool | None = None
    history: HistorySetup | None = None
    """On which SGLangs new findings are played, when nothing else is to be done."""
    max_scripts: int | None = None


class NightCampaign:
    """Runs once."""

    def __init__(
        self,
        options: Options,
        store: Store | Unstored,
        order: Order,
        *,
        on_event: Listener,
        start: StartProcess = start_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._store = store
        self._order = order
        self._on_event = on_event
        self._start_process = start
        self._clock = clock
        self._start = clock()
        self.summary = Summary()
        self._names = {config: name for name, config in options.configs.items()}
        self._counts = Counts(self.summary)
        self._troubles = TroubleLog(store.folder, self.summary.troubles, on_event)
        self._rounds = Rounds(options.seed, options.workers, order, store.record)
        self._selector = selectors.DefaultSelector()
        self._searchers: list[Worker] = []
        self._follower: Worker | None = None
        self._is_following = True
        """Whether the follower has not yet handled what it was told last; at its start it resumes."""
        self._sent: Sighted | Counted | Beside | PlayHistory | None = None
        self._histories = 0
        """Findings whose history the follower has not played."""
        self._history_failed = False
        """Whether a follower was lost while it played one: the next one would be, too."""
        self._backlog = Backlog(self._is_new)
        self._beside: dict[str, Beside] = {}
        self._waiting: OutFolder | None = None
        self._kept: set[str] = set()
        """Signatures of which a first violation is on the disk while it waits."""
        self._not_booted: dict[EngineConfig, str] = {}
        self._deaths = 0
        """Processes in a row that have ended by themselves, without a script in between."""
        self._in_hand = ""
        """Signature that the follower follows up."""
        self._origin: Origin | None = None
        """What the script was made from that the follower follows up."""
        self._killers: Counter[str] = Counter()
        """How many followers were lost over each signature."""
        self._found_before: frozenset[str] = frozenset()
        self._is_ending = False
        self._next_save_s = SAVE_EVERY_S
        self._scripts_at_save = 0

    def run(self) -> Summary:
        """Search until the time is up. Raises `EngineError` when no engine starts."""
        try:
            self._begin()
            while not self._is_over():
                self._turn()
        except KeyboardInterrupt:
            self.summary.interrupted = True
        finally:
            self._end()
        if self._not_booted and not self.summary.scripts and not self.summary.gave_up:
            raise EngineError(next(iter(self._not_booted.values())))
        self._on_event(Finished(self.summary, self._store.findings))
        return self.summary

    @property
    def waiting(self) -> int:
        """Number of signatures that nobody knows and that wait for the follower."""
        return self._backlog.new()

    # -- beginning and end -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        options = self._options
        ready = self._first_follower()
        self._start = self._clock()  # the time is for searching, and a boot takes a quarter of a minute
        self._found_before = frozenset(ready.known)
        self._waiting = OutFolder(
            self._store.findings, _Shown(ready, options.engine.faults), own_folders=self._store.own_folders
        )
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._store.record.begin(Night(now, ready.sglang_version, options.seed))
        self._save()
        self._on_event(
            Started(
                ready.sglang_version, options.seed, options.time_s, options.max_scripts, self._store.findings,
                len(options.known), ready.sglang_tree, ready.found_before,
            )
        )  # fmt: skip
        self._searchers = [self._started(self._make_searcher(number)) for number in range(1, options.workers + 1)]

    def _first_follower(self) -> Ready:
        """Start the follower, once more if it was killed meanwhile. Raises `EngineError`."""
        for _ in range(2):
            self._follower = self._started(self._make_follower())
            ready = self._first(self._follower)
            if ready is not None:
                return ready
            how = self._ended(self._follower, 5.0)
            self._follower = None
        raise EngineError(f"the follower has ended before its engine had started: {how}")

    def _first(self, worker: Worker) -> Ready | None:
        """Wait until a process has started its engine; None where it has ended before that."""
        ready: Ready | None = None
        while ready is None:
            if not worker.receive():
                return None
            for message in worker.messages():  # there may be more behind it
                ready = message if isinstance(message, Ready) else ready
                self._take(worker, message)
        return ready

    def _make_searcher(self, number: int) -> Worker:
        options = self._options
        setup = SearcherSetup(options.engine, options.configs, options.exhausters)
        return Worker(f"searcher {number}", setup, self._start_process)

    def _make_follower(self) -> Worker:
        options = self._options
        left = options.time_s - (self._clock() - self._start)
        setup = FollowerSetup(
            options.engine, options.configs, self._store.findings, self._store.own_folders, max(0.0, left),
            options.known_folder, options.all_new, options.canary, self.summary.findings, self._lost_causes(),
            options.history,
        )  # fmt: skip
        return Worker("follower", setup, self._start_process)

    def _started(self, worker: Worker) -> Worker:
        self._selector.register(worker, selectors.EVENT_READ, worker)
        return worker

    def _ended(self, worker: Worker, patience_s: float) -> str:
        self._selector.unregister(worker)
        return worker.end(patience_s)

    def _is_over(self) -> bool:
        options, summary = self._options, self.summary
        if summary.gave_up or (options.max_scripts is not None and summary.scripts >= options.max_scripts):
            return True
        return self._clock() - self._start >= options.time_s or self._rounds.exhausted

    def _end(self) -> None:
        """End the processes, the follower last: what it is following up is completed, or written as it is."""
        self._is_ending = True
        for searcher in self._searchers:
            searcher.send(Stop())
        deadline = self._clock() + _SEARCHER_ENDS_S
        for searcher in self._searchers:
            self._drain(searcher, deadline)
            self._ended(searcher, max(0.1, deadline - self._clock()))
        self._searchers.clear()
        if self._follower is not None:
            if self.summary.interrupted or isinstance(self._sent, PlayHistory):  # a history goes on the next night
                self._follower.interrupt()
            self._follower.send(Stop())
            patience = self._clock() + _FOLLOWER_ENDS_S
            self._drain(self._follower, patience)
            self._ended(self._follower, max(0.1, patience - self._clock()))
            self._follower = None
        if self._waiting is not None:
            self._waiting.end()
        self.summary.elapsed_s = self.summary.search_s = self._clock() - self._start
        self._counts.end()
        left = self._backlog.left()
        self.summary.waiting = {found: number for found, number in left.items() if self._is_new(found)}
        self.summary.uncounted = sum(left.values()) - sum(self.summary.waiting.values())
        if self._store.record.state.nights and self._waiting is not None:
            self._save()
        self._selector.close()

    def _drain(self, worker: Worker, until: float) -> None:
        """Take what a process still has to say, until it ends or the time is up."""
        is_there = True
        while is_there:
            try:
                self._take_all(worker)
                if (left := until - self._clock()) <= 0:
                    return
                worker.socket.settimeout(left)
                is_there = worker.receive()
            except TimeoutError:
                return
            except KeyboardInterrupt:  # a second one: the follower writes what it has
                self.summary.interrupted = True
                worker.interrupt()

    def _take_all(self, worker: Worker) -> None:
        for message in worker.messages():
            self._take(worker, message)

    # -- one turn ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for searcher in self._searchers:
            if searcher.is_ready and not self._rounds.has(searcher.name):
                self._give_round(searcher)
        if not self._is_following and self._follower is not None:
            self._give_work(self._follower)
        for key, _ in self._selector.select(_TICK_S):
            worker: Worker = key.data
            is_there = worker.receive()
            self._take_all(worker)
            if not is_there:
                self._lost(worker)
        if self._clock() - self._start >= self._next_save_s:
            self._save()

    def _give_round(self, searcher: Worker) -> None:
        order = self._rounds.next(searcher.name)
        if order is not None:
            searcher.send(order)

    def _give_work(self, follower: Worker) -> None:
        """Give the follower what is most urgent: the first canary, what waits, other canaries, histories."""
        first = not any(tally.verdict != "undecided" for tally in self.summary.canary.values())
        message: Sighted | Counted | Beside | PlayHistory | None = self._next_beside() if first else None
        if message is None and (waiting := self._backlog.take()) is not None:
            self._origin = waiting.origin
            message = Sighted(waiting.script, waiting.outcome)
        if message is None:
            hits = self._backlog.take_hits()
            message = Counted(hits) if hits else self._next_beside()
        if message is None and self._histories and not self._history_failed:
            message = PlayHistory()
        if message is not None:
            self._sent, self._is_following = message, True
            self._in_hand = _signature_of(message) if isinstance(message, Sighted) else ""
            follower.send(message)

    def _next_beside(self) -> Beside | None:
        return self._beside.pop(next(iter(self._beside)), None) if self._beside else None

    def _lost(self, worker: Worker) -> None:
        """A process has ended by itself: another one takes its place, unless that has helped nothing."""
        how = self._ended(worker, 5.0)
        self._deaths += 1
        self._troubles.keep(None, EngineError(f"the {worker.name.partition(' ')[0]} was lost: {how}"), "searching")
        if self._deaths >= MAX_IN_A_ROW:
            self.summary.gave_up = f"{MAX_IN_A_ROW} processes in a row were lost, the last by {how}"
            self._searchers = [searcher for searcher in self._searchers if searcher is not worker]
            self._follower = self._follower if worker is not self._follower else None
            return
        if worker is self._follower:
            self._lost_follower()
            return
        self._rounds.give_back(worker.name)
        number = self._searchers.index(worker)
        self._searchers[number] = self._started(self._make_searcher(number + 1))

    def _lost_follower(self) -> None:
        """Start another one, which begins with what is unfinished; but what has killed two of them is left so."""
        self._killers[self._in_hand] += bool(self._in_hand)
        if self._in_hand in self._lost_causes():
            what = f"{self._in_hand}: following it up has killed the follower; it is left unfinished"
            self._troubles.keep(None, EngineError(what), "following up")
        elif isinstance(self._sent, Sighted):  # it may not have come to write it down
            self._backlog.add(Waiting(self._in_hand, self._sent.script, self._sent.outcome, self._origin))
        if isinstance(self._sent, PlayHistory):
            self._history_failed = True
        self._in_hand, self._origin, self._sent, self._is_following = "", None, None, True
        self._follower = self._started(self._make_follower())

    def _lost_causes(self) -> tuple[str, ...]:
        return tuple(found for found, times in self._killers.items() if times >= _MOST_KILLED)

    # -- what the processes say --------------------------------------------------------------------------------

    def _take(self, worker: Worker, message: FromProcess) -> None:
        if isinstance(message, Played):
            self._played(worker, message)
        elif isinstance(message, RoundDone):
            self._rounds.done(worker.name)
            self.summary.gave_up = self.summary.gave_up or message.gave_up
        elif isinstance(message, Taken):
            self._in_hand = message.found
        elif isinstance(message, Told):
            self._on_event(message.event)
        elif isinstance(message, Handled):
            self._handled(message)
        elif isinstance(message, Met):
            self._troubles.add(message.script, message.what, message.told, message.doing)
        elif isinstance(message, NotBooted):
            self._add_not_booted(message)
        elif isinstance(message, Ready):
            worker.is_ready = True
        elif isinstance(message, CannotStart):
            self._cannot_start(worker, message)

    def _cannot_start(self, worker: Worker, message: CannotStart) -> None:
        what, _, told = message.message.partition("\n")
        if not self.summary.scripts and not self._is_ending:
            raise EngineError(message.message if told else what)
        self._troubles.add(None, what if not told else message.message.rstrip().rpartition("\n")[2], told, "starting")

    def _played(self, worker: Worker, message: Played) -> None:
        script, outcome = message.script, message.outcome
        self._deaths = 0
        name = self._names.get(script.config) or config_text(script.config)
        found = signature(outcome.violation, script.config) if outcome.violation is not None else None
        self._counts.add(script.config, name, outcome)
        origin = Origin(name, message.motifs)
        self._rounds.played(worker.name, message, origin, face(outcome) if found is not None else "", found)
        if found is not None:
            self._keep_while_waiting(found, message)
        if found is not None and found not in self._lost_causes():
            self._backlog.add(Waiting(found, script, outcome, origin))
        elapsed = self._clock() - self._start
        self._on_event(ScriptDone(name, outcome.steps, outcome.forwards, outcome.wall_s, elapsed, found))
        tally = self.summary.canary.get(name)
        if self._options.canary and (tally is None or tally.verdict == "undecided"):
            self._beside[name] = Beside(script, outcome, elapsed)

    def _is_new(self, found: str) -> bool:
        if found in self.summary.findings or found in self._found_before or found in self._lost_causes():
            return False
        return not self._options.known.candidates(found)

    def _keep_while_waiting(self, found: str, message: Played) -> None:
        """Put the first violation of a signature on the disk, since the follower may need hours to come to it."""
        if self._waiting is None or found in self._kept or not self._is_new(found):
            return
        self._kept.add(found)
        try:
            seen = first_seen(message.script, message.outcome, self._waiting.engine)
            self._waiting.begin(found, seen, suspect=False)
        except OSError as error:
            self._troubles.keep(message.script, error, "writing")

    def _handled(self, message: Handled) -> None:
        summary = self.summary
        self._credit(message.findings)
        summary.findings |= message.findings
        summary.canary |= message.canary
        summary.unplayed_fixes |= message.unplayed_fixes
        self._is_following, self._sent, self._in_hand, self._origin = False, None, "", None
        self._histories = message.histories
        for found in [found for found in self._kept if found in summary.findings]:
            self._kept.discard(found)
            if self._waiting is not None:
                try:
                    self._waiting.forget(found)
                except OSError as error:
                    self._troubles.keep(None, error, "writing")

    def _credit(self, findings: dict[str, FindingTally]) -> None:
        """Count what is found for what the script was made from that showed it."""
        before = self.summary.findings
        for key, tally in findings.items():
            is_found = tally.status in ("new", "suspect") and (key not in before or before[key].status != tally.status)
            if is_found and self._origin is not None:
                self._store.record.add_finding(self._origin, suspect=tally.status == "suspect")

    def _add_not_booted(self, message: NotBooted) -> None:
        if message.config in self._not_booted:
            return
        self._not_booted[message.config] = message.message
        name = self._names.get(message.config) or config_text(message.config)
        self._counts.add_not_booted(name, message.message.partition("\n")[0])
        self._order.leave_out(name)

    def _save(self) -> None:
        """Write the state; where the disk takes no more, the campaign goes on."""
        elapsed = self._clock() - self._start
        since = elapsed - (self._next_save_s - SAVE_EVERY_S)
        self._store.record.night.elapsed_s = round(elapsed, 1)
        if since >= SAVE_EVERY_S / 2:
            self._store.record.add_speed((self.summary.scripts - self._scripts_at_save) / since)
            self._scripts_at_save, self._next_save_s = self.summary.scripts, elapsed + SAVE_EVERY_S
        try:
            self._store.save()
        except OSError as error:
            self._troubles.keep(None, error, "writing")


def _signature_of(sighted: Sighted) -> str:
    assert sighted.outcome.violation is not None
    return signature(sighted.outcome.violation, sighted.script.config)


class _Shown:
    """What findings say of the engine under test."""

    def __init__(self, ready: Ready, faults: tuple[str, ...]) -> None:
        self.sglang_version, self.sglang_tree, self.faults = ready.sglang_version, ready.sglang_tree, faults
