"""Each process of an engine is killed, between two scripts and while one is played, and the script is played again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sr_fuzz.strategies.configs import find_configs
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.campaign.events import ScriptDone
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.engine.around.resumed import ResumedEngine
from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.outcome.files import load
from sr_fuzz.script import AbortAll, EngineConfig, Prompt, Script, StartReq, Step
from sr_fuzz.script.errors import ProcessLost
from tests.engine.test_kept import wait_until

CONFIG = EngineConfig()
SCRIPT = Script(CONFIG, (StartReq("r0", Prompt(0, 8), 20, ignore_eos=True), Step(3), AbortAll(), Step(2)))

# Bounds a test that has failed already: the script may wait for an engine that is started anew.
STARTED_S = 300.0

FAULTS = ["tests.engine.faulty:waits_for_a_kill"]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not been killed before, and wait for their parents to notice."""
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


OTHERS: set[psutil.Process] = set()
"""Processes of other engines of the test session."""


def family() -> list[psutil.Process]:
    return [each for each in alive(psutil.Process().children(recursive=True)) if each not in OTHERS]


def find(word: str) -> psutil.Process:
    """The oldest process of the engine whose command line, or name where it has no other, has that word."""
    found = [each for each in family() if word in " ".join([*each.cmdline(), each.name()])]
    return min(found, key=lambda each: each.create_time())


def playing_child() -> psutil.Process:
    return psutil.Process(int(Path(os.environ["SR_FUZZ_TEST_MARK"]).read_text()))


def configuration_process() -> psutil.Process:
    zygote = find("local.zygote")
    return alive(zygote.children())[0]


# What to kill, and what is told of it.
KEEPER = (lambda: find("live.keeper"), "the process that watches over the engine was ended from outside")
KILLED = "the scheduler process was ended from outside by SIGKILL"
PROCESSES: dict[str, tuple[Callable[[], psutil.Process], str]] = {
    "local-zygote": (lambda: find("local.zygote"), "has imported SGLang was ended from outside by SIGKILL"),
    "local-configuration": (configuration_process, "the configuration process"),
    "local-child": (playing_child, KILLED),
    "persistent-keeper": KEEPER,
    "persistent-scheduler": (lambda: find("live.scheduler_main"), KILLED),
    "server-keeper": KEEPER,
    "server-main": (lambda: find("live.server_main"), KILLED),
    "server-scheduler": (lambda: find("sglang::schedul"), KILLED),
    "server-detokenizer": (lambda: find("sglang::detok"), KILLED),
}
# Between two scripts there is no child, and the keeper reports each death on a server in the same way.
ALREADY_SEEN = ("local-child", "server-main", "server-detokenizer")
ENGINES = {"local": LocalEngine, "persistent": PersistentEngine, "server": ServerEngine}


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which the scheduler says that it waits to be killed; while it is there, it does not wait."""
    path = tmp_path_factory.mktemp("mark") / "here"
    os.environ["SR_FUZZ_TEST_MARK"] = str(path)
    yield path
    del os.environ["SR_FUZZ_TEST_MARK"]


@pytest.fixture(scope="module", params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def engine(kind: str, mark: Path) -> Iterator[Engine]:
    OTHERS.update(psutil.Process().children(recursive=True))
    with ENGINES[kind](faults=FAULTS) as engine:
        yield engine


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_a_killed_process_is_started_again_and_the_script_is_played_again(kind: str, engine: Engine, mark: Path):
    lost: list[str] = []
    resumed = ResumedEngine(engine, lambda script, error: lost.append(str(error).splitlines()[0]))
    mark.touch()
    healthy = resumed.run(SCRIPT)
    assert healthy.ok, healthy.report()
    for name, (victim, told) in PROCESSES.items():
        if not name.startswith(f"{kind}-"):
            continue
        if name not in ALREADY_SEEN:
            kill(victim())
            _played_again(resumed, healthy.trace, lost, f"{name}, between", told)
        mark.unlink()
        killer = threading.Thread(target=lambda: wait_until(mark.exists, STARTED_S) and kill(victim()))
        killer.start()
        _played_again(resumed, healthy.trace, lost, f"{name}, during", told)
        killer.join()


def _played_again(resumed: Engine, trace: object, lost: list[str], case: str, told: str) -> None:
    lost.clear()
    outcome = resumed.run(SCRIPT)
    assert outcome.ok, f"{case}: {outcome.report()}"
    assert outcome.trace == trace, case
    assert len(lost) == 1 and told in lost[0], f"{case}: {lost}"


@pytest.mark.parametrize("kind", ["local", "persistent"], indirect=True)
def test_who_does_not_play_again_is_told_and_can_go_on(engine: Engine, mark: Path):
    """A test fails of what was killed under it, and the one after it does not."""
    mark.touch()
    assert engine.run(SCRIPT).ok
    for process in family():
        if process.ppid() == os.getpid():
            kill(process)
    with pytest.raises(ProcessLost, match="ended from outside"):
        engine.run(SCRIPT)
    assert engine.run(SCRIPT).ok


def test_a_campaign_goes_on_after_kills_and_shows_them(tmp_path: Path):
    """Of the zygote, which all its engines share, and of a configuration process."""
    played: list[ScriptDone] = []
    OTHERS.update(psutil.Process().children(recursive=True))

    def on_event(event: object) -> None:
        if isinstance(event, ScriptDone):
            played.append(event)
            if len(played) in (4, 8):
                kill(find("local.zygote") if len(played) == 4 else configuration_process())

    configs = list(find_configs(["overlap-chunk16"]).values())
    with LocalEngine() as engine:
        summary = run_campaign(
            engine, scripts=scripts(configs), time_s=600, seed=1, out=tmp_path, known={}, on_event=on_event,
            max_scripts=12,
        )  # fmt: skip
    assert summary.scripts == 12 and not summary.gave_up
    resumed = [trouble for trouble in summary.troubles if trouble.doing == "resuming"]
    assert len(resumed) == len(summary.troubles) == 2
    assert [trouble.count for trouble in resumed] == [1, 1]
    for trouble in resumed:
        assert trouble.path is not None and load(trouble.path).script.config == configs[0]
