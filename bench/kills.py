"""Kill a running campaign, or one of its processes, at random moments, and look at what is lost and what is left.

    python -m bench.kills [--kills 100] [--signals 50] [--seed 1] [--only zygote] [--engine local]

Each row is a campaign that finds a seeded fault. One of its processes gets a signal: at boot, while a finding is
minimised or written, or at any other moment. Then:

* no process of it is alive, and nothing is left in its folder for temporary files or in /dev/shm, except for a folder
  that the next start removes;
* every file in the folder of the findings can be read, and each test has its finding beside it;
* every finding that it has announced is there: as a test, unfinished, or aside as not reproduced;
* the state of a night can be read, and counts no script less than before;
* a campaign whose own process was killed is begun again, and completes what was left; one that lost another process
  goes on by itself and ends with status 0; one that was stopped by a signal ends with the status of the signal.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer
from rich.console import Console

from sr_fuzz.campaign.finding_folder import TRACE
from sr_fuzz.campaign.store import Store, StoreError
from sr_fuzz.faults.catalogue import FAULTS
from sr_fuzz.lifetime.owned_folders import PREFIX
from sr_fuzz.outcome.files import finding_file, load
from sr_fuzz.script import ScriptError

FAULT = "dropped_free"
"""It shows within a few scripts, on every configuration."""

TIME_S = {"run": 20.0, "night": 30.0}
"""A campaign's budget: an import, a boot, a finding and its follow-up on a busy machine. A night boots two engines, one
after the other."""

# Longer than a campaign of 20 s takes on a machine with four times as many runnable processes as processors.
_PATIENCE_S = 240.0
# For processes to end after their parent was killed; the kernel signals them at once.
_GRACE_S = 10.0

TARGETS = ("campaign", "zygote", "configuration", "child", "searcher", "follower", "keeper", "scheduler")
_OF_RUN, _OF_NIGHT, _OF_LIVE = TARGETS[:4], TARGETS[:6], ("keeper", "scheduler", "campaign")
NIGHTLY = "nightly"
STAGES = ("boot", "minimise", "emit", "any")
STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class Case(NamedTuple):
    """What gets which signal, and when."""

    target: str
    number: signal.Signals
    stage: str
    seed: int


class Campaign:
    """One campaign in a process group and folders of its own."""

    def __init__(self, folder: Path, seed: int, engine: str) -> None:
        """``engine``: what searches: a kind of engine, or ``nightly``."""
        self.is_night = engine == NIGHTLY
        self.time_s = TIME_S["night" if self.is_night else "run"]
        self.store, self.temporary = folder / "store", folder / "tmp"
        self.out = self.store / "findings" if self.is_night else folder / "findings"
        self.temporary.mkdir(exist_ok=True)
        self.log = folder / f"log-{seed}"
        path = FAULTS[FAULT].path
        where = ["nightly", "--workers", "2", "--store", str(self.store)] if self.is_night else [
            "run", "--engine", engine, "--out", str(self.out)
        ]  # fmt: skip
        arguments = ["--fault", path, "--config", "overlap-chunk16", "--time", f"{self.time_s:g}s", "--seed", str(seed)]
        self.shared_memory = set(os.listdir("/dev/shm"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sr_fuzz", *where, *arguments],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_default_signals,
                env=os.environ | {"TMPDIR": str(self.temporary)},
            )  # fmt: skip
        self.seen: dict[int, psutil.Process] = {}

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """The processes that it has started, parents first; they are remembered."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self.seen |= {each.pid: each for each in found}
        return found

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Whether it happened before the campaign ended."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and self.process.poll() is None:
            if happened():
                return True
            self.processes()
            time.sleep(0.005)
        return False


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it


def _reach(campaign: Campaign, stage: str, draw: random.Random) -> None:
    """Wait until the campaign is in that stage, and a random while longer."""
    if stage == "boot":
        campaign.wait_for(lambda: bool(campaign.processes()))
        _wait(campaign, draw.uniform(0, 12))
    elif stage == "minimise":
        campaign.wait_for(lambda: any((campaign.out / "unfinished").glob("*.json")))
        _wait(campaign, draw.uniform(0, 2))
    elif stage == "emit":
        # A night tells on its lines when a finding is confirmed, not before.
        campaign.wait_for(lambda: "minimised to" in campaign.text or "reproduced in" in campaign.text)
        _wait(campaign, draw.uniform(0, 1))
    else:
        campaign.wait_for(lambda: "seed" in campaign.text)
        _wait(campaign, draw.uniform(0, campaign.time_s / 2))


def _wait(campaign: Campaign, seconds: float) -> None:
    until = time.monotonic() + seconds
    campaign.wait_for(lambda: time.monotonic() >= until)


def _pick(campaign: Campaign, target: str, draw: random.Random) -> int | None:
    """The process to be signalled; None where there is none at this moment."""
    if target == "campaign":
        return campaign.process.pid
    found = campaign.processes()
    if target in ("searcher", "follower"):
        workers = [each.pid for each in found if re.search(f"campaign.workers [0-9]+ {target}", _line(each))]
        return draw.choice(workers) if workers else None
    words = {"keeper": ("live.keeper",), "scheduler": ("sglang::scheduler", "live.scheduler_main")}
    if target in words:
        return next((each.pid for each in found if any(word in _line(each) for word in words[target])), None)
    depth = {"zygote": 0, "configuration": 1, "child": 2}[target]
    zygotes = [each for each in found if "local.zygote" in _line(each)]
    level = [each for each in zygotes if _depth(each, zygotes) == depth]
    return draw.choice(level).pid if level else None


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _depth(process: psutil.Process, among: list[psutil.Process]) -> int:
    pids, depth = {each.pid for each in among}, 0
    try:
        while (parent := process.ppid()) in pids:
            process, depth = psutil.Process(parent), depth + 1
    except psutil.Error:
        return -1
    return depth


def play(case: Case, folder: Path, engine: str) -> list[str]:
    """Play one case; returns what was wrong after it."""
    draw = random.Random(f"{case}")
    campaign = Campaign(folder, case.seed, engine)
    _reach(campaign, case.stage, draw)

    def send() -> bool:
        found = _pick(campaign, case.target, draw)
        return found is not None and _sent(found, case.number)

    sent = campaign.wait_for(send)
    campaign.processes()
    try:
        status = campaign.process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        campaign.process.kill()
        return [f"it did not end within {_PATIENCE_S:g} s"]
    wrong = _left(campaign) + _files(campaign.out) + _lost(campaign) + _state(campaign)
    if not sent:
        wrong.append("it ended before it was killed")
    allowed = {0}
    if case.target == "campaign":
        allowed |= {-signal.SIGKILL} if case.number == signal.SIGKILL else {STATUSES[case.number]}
    if status not in allowed:
        wrong.append(f"status {status}: {campaign.text.strip().splitlines()[-1:]}")
    for_the_next = [what for what in wrong if what.startswith(f"left: {PREFIX}")]
    if for_the_next or (case.target == "campaign" and case.number == signal.SIGKILL):
        wrong = [what for what in wrong if what not in for_the_next]
        wrong += _again(folder, case, engine, campaign)
    return wrong


def _sent(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _again(folder: Path, case: Case, engine: str, killed: Campaign) -> list[str]:
    """Begin again in the same folders."""
    before, counted = _unfinished(killed.out), _scripts(killed)
    second = Campaign(folder, case.seed + 1_000_000, engine)
    try:
        status = second.process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        second.process.kill()
        return ["the next start did not end"]
    found = [_left(second), _files(second.out), _lost(second), _lost(killed), _state(second)]
    wrong = [f"next start: {what}" for what in itertools.chain(*found)]
    if _scripts(second) < counted:
        wrong.append(f"next start: the state counts {_scripts(second)} scripts, and counted {counted}")
    if status != 0:
        wrong.append(f"next start: status {status}: {second.text.strip().splitlines()[-1:]}")
    # What the second night itself has seen may wait for a third one.
    left = _unfinished(second.out) & before if killed.is_night else _unfinished(second.out)
    if left or list(second.out.rglob(".*.unfinished")):
        wrong.append(f"next start: left unfinished what was unfinished: {sorted(left)}")
    return wrong


def _unfinished(out: Path) -> set[str]:
    return {path.name for path in (out / "unfinished").glob("*.json")}


def _state(campaign: Campaign) -> list[str]:
    """Why the state of a night cannot be read."""
    try:
        _scripts(campaign)
    except StoreError as error:
        return [str(error)]
    return []


def _scripts(campaign: Campaign) -> int:
    """Scripts that the state of a night counts."""
    if not campaign.is_night:
        return 0
    with contextlib.closing(Store(campaign.store)) as store:
        return store.record.state.scripts


def _left(campaign: Campaign) -> list[str]:
    """What is alive, and what lies about."""
    _, alive = psutil.wait_procs(list(campaign.seen.values()), timeout=_GRACE_S)
    wrong = [f"alive: {each.pid} {_line(each)[:60]}" for each in alive if _line(each)]
    wrong += [f"left: {path.name}" for path in campaign.temporary.iterdir()]
    new = {name for name in os.listdir("/dev/shm") if name not in campaign.shared_memory}
    return wrong + [f"left in /dev/shm: {name}" for name in sorted(new - _mapped(new))]


def _mapped(names: set[str]) -> set[str]:
    """Those that some process uses: another campaign on this machine."""
    used: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps") if names else ():
        try:
            text = maps.read_text()
        except OSError:
            continue  # the process has ended
        used |= {name for name in names if f"/dev/shm/{name}" in text}
    return used


def _files(out: Path) -> list[str]:
    """Files that cannot be read, and tests without their finding."""
    wrong = []
    for path in _findings(out):
        try:
            load(path)
        except ScriptError as error:
            wrong.append(str(error))
    for path in out.rglob("test_*.py"):
        compile(path.read_bytes(), str(path), "exec")
        if not finding_file(path).exists():
            wrong.append(f"{path.name} has no finding beside it")
    return wrong


def _findings(out: Path) -> list[Path]:
    """The files of findings and scripts."""
    return [path for path in out.rglob("*.json") if not path.name.startswith(".") and path.name != TRACE]


def _lost(campaign: Campaign) -> list[str]:
    """Findings that were announced and are not on the disk."""
    announced = set(re.findall(r"^new finding (\S+: \S+), on", campaign.text, re.MULTILINE))
    kept = set()
    for path in _findings(campaign.out):
        if path.parent.name != "trouble" and (found := load(path).finding):
            kept.add(f"{found.violation.invariant}: {found.violation.rule}")
    return [f"lost: {what}" for what in sorted(announced - kept)]


def _cases(kills: int, signals: int, seed: int, only: str | None, engine: str) -> list[Case]:
    draw = random.Random(seed)
    of_engine = {NIGHTLY: _OF_NIGHT, "local": _OF_RUN}
    targets = [only] if only else of_engine.get(engine, _OF_LIVE)
    cases = [Case(targets[n % len(targets)], signal.SIGKILL, _stage(n, draw), seed * 1000 + n) for n in range(kills)]
    numbers = list(STATUSES)
    return cases + [Case("campaign", numbers[n % 3], _stage(n, draw), seed * 1000 + kills + n) for n in range(signals)]


def _stage(n: int, draw: random.Random) -> str:
    """Half of them are aimed at what is delicate."""
    return draw.choice(STAGES[:3]) if n % 2 else "any"


def main(
    kills: Annotated[int, typer.Option(help="How many times SIGKILL.")] = 100,
    signals: Annotated[int, typer.Option(help="How many times SIGINT, SIGTERM or SIGHUP, to the campaign.")] = 50,
    seed: Annotated[int, typer.Option(help="Other moments.")] = 1,
    only: Annotated[str | None, typer.Option(help=f"Only this target of SIGKILL: {', '.join(TARGETS)}.")] = None,
    engine: Annotated[str, typer.Option(help="local, persistent, server or nightly.")] = "local",
) -> None:
    """Kill campaigns; the exit status is 1 if anything was lost or left."""
    console, bad = Console(highlight=False, width=200), 0
    cases = _cases(kills, signals, seed, only, engine)
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            wrong = play(case, Path(folder), engine)
        bad += bool(wrong)
        what = "; ".join(wrong) or "nothing lost, nothing left"
        console.print(f"{case.target:14} {case.number.name:8} {case.stage:9} {what}", soft_wrap=True)
    console.print(f"{len(cases)} cases, {bad} with something lost or left")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)
