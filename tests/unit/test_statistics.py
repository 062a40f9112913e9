"""Statistics: what scripts reached is summed by configuration, and what no script reached is reported as dead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import strategies as st
from rich.console import Console

from sr_fuzz import cli
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.campaign.statistics import Statistics, measure
from sr_fuzz.cli import engines
from sr_fuzz.outcome import Outcome, Violation
from sr_fuzz.play.reach_kinds import KINDS, add_reach, applies, dead_kinds
from sr_fuzz.report.statistics import print_statistics
from sr_fuzz.report.summary import summary
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step, script_hash

TREE = EngineConfig()
BARE = EngineConfig(disable_radix_cache=True, chunked_prefill_size=-1)
CONFIGS = {"with-tree": TREE, "bare": BARE}

SCRIPTS = st.builds(
    lambda config, length: Script(config, (StartReq("r0", Prompt(length=length)), Step(3))),
    st.sampled_from([TREE, BARE]),
    st.integers(1, 4000),
)


class CountingEngine:
    """Reaches everything except ``missing``, once per script, where the configuration has it."""

    sglang_version = "0.0.fake"
    sglang_tree = None
    faults: tuple[str, ...] = ()

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.played: list[Script] = []

    def run(
        self, script: Script, *, invariants: Sequence[str] | None = None, limit_s: float | None = None
    ) -> Outcome:
        self.played.append(script)
        kinds = [kind for kind in KINDS if kind not in self.missing and applies(kind, script.config)]
        violation = Violation("kv_pages", "leaked", "page 5", 3) if script.config == BARE else None
        reach = dict.fromkeys(kinds, 1) | {"batch.own_mode": 2, "max.chunks": len(self.played)}
        return Outcome(script_hash(script), "0.0.fake", violation, steps=10, reach=reach)


def shown(found: Statistics, width: int = 160) -> list[str]:
    console = Console(file=StringIO(), width=width)
    print_statistics(console, found)
    return console.file.getvalue().splitlines()


def row(lines: list[str], kind: str) -> list[str]:
    return next(line.split() for line in lines if line.split()[:1] == [kind])


def test_counts_add_up_by_configuration_and_the_largest_of_a_maximum_counts() -> None:
    engine = CountingEngine()
    found = measure(engine, CONFIGS, SCRIPTS, count=30, seed=1)
    assert found.scripts == len(engine.played) == 30
    tree, bare = found.configs["with-tree"], found.configs["bare"]
    assert tree.scripts + bare.scripts == 30 and tree.scripts and bare.scripts
    assert (tree.count("tree.evict"), bare.count("tree.evict")) == (tree.scripts, None)
    assert found.total["batch.decode"] == 30
    assert found.total["max.chunks"] == 30
    assert bare.violations == {"kv_pages:leaked:no-radix+overlap": bare.scripts} and not tree.violations
    assert found.never_reached == []


def test_the_same_seed_plays_the_same_scripts() -> None:
    one, two, other = CountingEngine(), CountingEngine(), CountingEngine()
    for engine, seed in ((one, 1), (two, 1), (other, 2)):
        measure(engine, CONFIGS, SCRIPTS, count=10, seed=seed)
    assert one.played == two.played != other.played


def test_it_ends_when_the_time_is_up() -> None:
    now = iter(range(100))
    found = measure(CountingEngine(), CONFIGS, SCRIPTS, count=50, seed=1, time_s=5, clock=lambda: float(next(now)))
    assert found.scripts == 4


def test_a_dead_kind_is_marked_and_listed() -> None:
    lines = shown(measure(CountingEngine("cache.outputs", "stage.retracted"), CONFIGS, SCRIPTS, count=20, seed=1))
    assert row(lines, "cache.outputs")[1] == "never"
    assert row(lines, "cache.hits")[1] != "never"
    assert lines[-1] == "never reached: stage.retracted, cache.outputs"
    assert any("violations on bare" in line for line in lines)


def test_what_cannot_occur_is_neither_counted_nor_dead() -> None:
    lines = shown(measure(CountingEngine("tree.evict"), {"bare": BARE}, st.just(Script(BARE, ())), count=1, seed=1))
    assert row(lines, "tree.evict") == ["tree.evict", "0"]
    assert lines[-1] == "everything was reached"
    assert row(lines, "batch.own_mode")[1:] == ["2", "2"]


def test_a_narrow_console_gets_several_tables() -> None:
    found = measure(CountingEngine(), CONFIGS, SCRIPTS, count=20, seed=1)
    lines = shown(found, width=46)
    assert all(len(line) <= 46 for line in lines if line.startswith("action."))
    assert sum(line.startswith("action.start_req ") for line in lines) == 2


def test_adding_keeps_the_largest_maximum() -> None:
    total = {"batch.decode": 1, "max.waiting": 4}
    add_reach(total, {"batch.decode": 2, "batch.extend": 1, "max.waiting": 3})
    assert total == {"batch.decode": 3, "batch.extend": 1, "max.waiting": 4}


def test_a_missed_stage_is_never_dead() -> None:
    dead = dead_kinds({}, [TREE])
    assert "stage.retracted" in dead and not any(kind.endswith(".missed") for kind in dead)


def test_a_campaign_says_what_it_never_reached(tmp_path: Path) -> None:
    engine = CountingEngine("cache.outputs")
    strategy = SCRIPTS.filter(lambda script: script.config == TREE)
    done = run_campaign(
        engine, scripts=strategy, time_s=60, seed=1, out=tmp_path, known={}, on_event=lambda event: None, max_scripts=5
    )
    assert done.never_reached == ["cache.outputs"]
    console = Console(file=StringIO(), width=160)
    console.print(summary(done))
    assert "Never reached: cache.outputs." in console.file.getvalue()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> CountingEngine:
    fake = CountingEngine("cache.outputs")

    @contextmanager
    def start(*args: object, **options: object) -> Iterator[CountingEngine]:
        yield fake

    monkeypatch.setattr(engines, "start", start)
    return fake


def test_the_command_prints_the_table_and_writes_json(
    engine: CountingEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reach.json"
    arguments = ["statistics", "--config", "normal-chunk8", "--scripts", "6", "--seed", "3", "--json", str(file)]
    assert cli.main(arguments) == 0
    assert len(engine.played) == 6
    assert capsys.readouterr().out.splitlines()[-1] == "never reached: cache.outputs"
    found = msgspec.json.decode(file.read_bytes(), type=Statistics)
    assert (found.seed, found.scripts, found.never_reached) == (3, 6, ["cache.outputs"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "nonsense"], "--set: no engine configuration 'nonsense'"),
        (["--json", "no/such/folder/x.json"], "--json: "),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["statistics", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sr-fuzz: error: ") and complaint in error and error.count("\n") == 1
