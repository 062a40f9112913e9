"""A night with processes that play on a fake engine: they are forked, so that a test may kill them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from fake_engine import FakeEngine, Rule

from sr_fuzz.bugs.known import Known
from sr_fuzz.campaign.events import Event, Summary
from sr_fuzz.campaign.night import NightCampaign, Options
from sr_fuzz.campaign.order import RoundRobin
from sr_fuzz.campaign.store import Store, Unstored
from sr_fuzz.campaign.workers.channel import Channel
from sr_fuzz.campaign.workers.handles import StartProcess
from sr_fuzz.campaign.workers.messages import EngineSetup, HistorySetup
from sr_fuzz.campaign.workers.process import serve
from sr_fuzz.lifetime.parent_death import die_with_parent
from sr_fuzz.script import EngineConfig

CONFIGS = {"default": EngineConfig(), "small": EngineConfig(max_total_tokens=96)}


class Forked:
    """A forked process, with what is used of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 60.0)
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("a forked process", timeout or 60.0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def starter(
    rule: Rule, started: list[int] | None = None, elsewhere: Callable[[tuple[str, ...]], Rule] | None = None
) -> StartProcess:
    """Start processes whose engine breaks by ``rule``; their ids go into ``started``.

    ``elsewhere``: gives the rule of an engine by its path.
    """

    def start(end: socket.socket, name: str) -> Forked:
        campaign = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent(campaign)
                kept = end.fileno()
                os.closerange(3, kept)
                os.closerange(kept + 1, 1 << 12)
                serve(Channel(end), lambda setup: FakeEngine(elsewhere(setup.sys_path) if elsewhere else rule))
            finally:
                os._exit(0)
        if started is not None:
            started.append(pid)
        return Forked(pid)

    return start


def night(
    rule: Rule,
    folder: Path,
    *,
    stored: bool = True,
    workers: int = 2,
    seed: int = 1,
    max_scripts: int | None = 60,
    time_s: float = 120.0,
    on_event: Callable[[Event], None] | None = None,
    started: list[int] | None = None,
    history: HistorySetup | None = None,
    elsewhere: Callable[[tuple[str, ...]], Rule] | None = None,
) -> tuple[Summary, list[Event]]:
    """A night on the store ``folder``, or with its findings there; returns its summary and its events.

    ``time_s`` bounds one that has failed.
    """
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event)

    store = Store(folder) if stored else Unstored(folder)
    try:
        options = Options(
            CONFIGS, EngineSetup(), seed, time_s, workers, Known([]), canary=False, all_new=True,
            max_scripts=max_scripts, history=history,
        )  # fmt: skip
        order = RoundRobin(list(CONFIGS), size=1)
        start = starter(rule, started, elsewhere)
        summary = NightCampaign(options, store, order, on_event=listen, start=start).run()
    finally:
        if isinstance(store, Store):
            store.close()
    return summary, events
