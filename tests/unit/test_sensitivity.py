"""How faults are measured, and how a report compares with an earlier one. The engine is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from fake_engine import FakeEngine, leak

from sr_fuzz import cli
from sr_fuzz.campaign.sensitivity import Report, Search, Sensitivity, compare, load_report
from sr_fuzz.cli import engines
from sr_fuzz.faults import Fault
from sr_fuzz.outcome import Violation
from sr_fuzz.script import Abort, EngineConfig, FlushCache, Prompt, Script, StartReq, Step
from sr_fuzz.script.errors import EngineError


def double_free():
    return nullcontext()


def never_seen():
    return nullcontext()


DOUBLE_FREE = Fault("double_free", "a class of bugs", ("kv_pages",), double_free)
NEVER_SEEN = Fault("never_seen", "another class", ("streams",), never_seen)

START = StartReq("r0", Prompt(length=30))
QUIET = Script(EngineConfig(), (START, Step(3)))
FLUSHED = Script(EngineConfig(), (START, FlushCache(), Step(1)))
ABORTED = Script(EngineConfig(), (START, Step(3), FlushCache(), Abort("r0"), Step(9)))
SCRIPTS = [QUIET, FLUSHED, ABORTED]

LOST = Violation("nobody_lost", "lost", "r0 is nowhere", 2)


def on_abort(script: Script) -> Violation | None:
    return leak() if any(isinstance(action, Abort) for action in script.actions) else None


def on_flush(script: Script) -> Violation | None:
    return LOST if any(isinstance(action, FlushCache) for action in script.actions) else None


def either(script: Script) -> Violation | None:
    return on_abort(script) or on_flush(script)


def engine(healthy=lambda script: None, faulty=on_abort) -> FakeEngine:
    return FakeEngine(healthy, {DOUBLE_FREE.path: faulty, NEVER_SEEN.path: lambda script: None})


def measured(fake: FakeEngine, fault: Fault = DOUBLE_FREE, **options: object) -> Search:
    return Sensitivity(fake, time_s=60, **options).measure(fault, SCRIPTS)  # type: ignore[arg-type]


def test_a_fault_that_is_seen_is_minimised_and_confirmed():
    search = measured(engine())
    assert (search.detected_by, search.as_expected, search.scripts) == ("kv_pages:leaked", True, 3)
    assert (search.reached, search.triggered) == (3, 1)
    assert (search.first_actions, search.minimal_actions, search.reproduced, search.tried) == (5, 1, 5, 5)
    assert "abort(r0)" in search.minimal and not search.why_not


def test_what_the_healthy_scheduler_shows_too_is_not_the_fault():
    assert measured(engine(healthy=on_flush, faulty=either)).detected_by == "kv_pages:leaked"
    assert not measured(engine(healthy=either, faulty=either)).detected


def test_a_minimal_script_that_needs_no_fault_is_told():
    search = measured(engine(healthy=lambda s: leak() if len(s.actions) == 1 and on_abort(s) else None))
    assert search.detected and "bug of SGLang" in search.problem


def test_the_row_says_why_a_fault_was_not_seen():
    assert measured(engine(), NEVER_SEEN).why_not == "reached in 3 of 3 scripts, never triggered"
    absent = measured(FakeEngine(lambda script: None))
    assert absent.scripts == 0
    assert absent.why_not == (
        "a configuration could not be played: SGLang did not boot with this configuration: AttributeError: no such "
        "function"
    )
    blind = Search("x", scripts=9, reached=5, triggered=2)
    assert blind.why_not == "triggered in 2 of 9 scripts, and not seen"
    assert Search("x", scripts=9).why_not == "never reached in 9 scripts"


def test_a_configuration_that_cannot_be_played_is_passed_over():
    def rule(script: Script) -> Violation | None:
        if script.config.page_size == 4:
            raise EngineError("not in this release\nTraceback")
        return on_abort(script)

    paged = [Script(EngineConfig(page_size=4), script.actions) for script in SCRIPTS]
    search = Sensitivity(engine(faulty=rule), time_s=60).measure(DOUBLE_FREE, [*paged, *SCRIPTS])
    assert (search.detected, search.scripts) == (True, 3)
    assert search.problem == "a configuration could not be played: not in this release"


def test_the_search_for_a_fault_ends_when_its_time_is_up():
    now = iter(range(0, 10_000, 40))
    search = measured(engine(), NEVER_SEEN, clock=lambda: next(now))
    assert (search.scripts, search.cut_short) == (1, True)
    assert search.why_not == "reached in 1 of 1 scripts, never triggered; the time was up"


def test_a_busy_machine_does_not_lose_a_fault():
    before = report(Search("a", scripts=20, detected_by="a:b", minimal_actions=2))
    assert not compare(report(Search("a", scripts=19, cut_short=True)), before).lost
    assert compare(report(Search("a", scripts=20, cut_short=True)), before).lost


def report(*rows: Search) -> Report:
    result = Report("0.5.23", 0, 60, list(rows))
    result.summarise()
    return result


def test_medians_are_those_of_the_faults_that_were_seen():
    seen = [
        Search(str(length), scripts=scripts, search_s=scripts / 2, detected_by="a:b", minimal_actions=length)
        for length, scripts in enumerate((2, 4, 40))
    ]
    result = report(*seen, Search("d", scripts=60, search_s=60.0))
    assert (result.median_s, result.median_scripts, result.median_actions) == (2.0, 4, 1)
    assert report(Search("d")).median_s is None


def test_a_report_beside_its_baseline():
    seen = dict(detected_by="a:b", minimal_actions=2)
    before = report(
        *(Search(name, scripts=3, **seen) for name in ("lost", "slow", "same")),
        Search("found"),
        Search("left", scripts=3, **seen),
    )
    now = report(
        Search("lost", scripts=60),
        Search("slow", scripts=9, **seen),
        Search("same", scripts=3, search_s=99.0, **seen),
        Search("found", scripts=5, **seen),
        Search("new"),
    )
    changes = compare(now, before)
    assert changes.lost == ["lost: was detected by a:b; now never reached in 60 scripts"]
    assert [line.partition(":")[0] for line in changes.slower] == ["slow"]
    assert [line.partition(":")[0] for line in changes.gained] == ["found", "new"]
    assert changes.unmeasured == ["left: not measured"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 99}', b'{"format": 1, "rows": 3}', b"\xff\xfe"])
def test_a_baseline_that_is_none_is_one_line_with_its_name(content: bytes, tmp_path: Path):
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="baseline.json: ") as raised:
        load_report(path)
    assert "\n" not in str(raised.value)


# -- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def faults_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of faults, which is the current folder."""
    (tmp_path / "own_faults.py").write_text(
        "from contextlib import nullcontext\n"
        "from sr_fuzz.faults import fault\n\n\n"
        "@fault('own', stands_for='mine', expected=('kv_pages',))\n"
        "def own():\n    return nullcontext()\n\n\n"
        "def bare():\n    return nullcontext()\n"
    )
    (tmp_path / "broken_faults.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(lambda script: None, {"own_faults:own": on_abort, "own_faults:bare": lambda script: None})

    @contextmanager
    def start(*_args: object, **_options: object) -> Iterator[FakeEngine]:
        yield fake

    monkeypatch.setattr(engines, "start", start)
    return fake


LOAD = ["--load", "own_faults:own", "--load", "own_faults:bare", "--set", "overlap-chunk16"]


def test_faults_from_outside_the_project_are_measured(faults_module: Path, started: FakeEngine, capsys):
    assert cli.main(["sensitivity", *LOAD, "--json", "now.json"]) == 0
    printed = capsys.readouterr().out
    own, bare = load_report(Path("now.json")).searches
    assert (own.fault, own.detected_by, own.stands_for) == ("own", "kv_pages:leaked", "mine")
    assert (bare.fault, bare.scripts, bare.why_not) == ("bare", 60, "reached in 60 of 60 scripts, never triggered")
    assert "1 of 2 faults detected" in printed and "not detected: bare: reached" in printed


def test_the_table_can_be_a_page(faults_module: Path, started: FakeEngine):
    assert cli.main(["sensitivity", *LOAD, "--markdown", "page.md"]) == 0
    page = Path("page.md").read_text()
    assert "1 of 2 faults detected" in page
    [own] = [line for line in page.splitlines() if line.startswith("| `own` | mine |")]
    [bare] = [line for line in page.splitlines() if line.startswith("| `bare` |")]
    assert "`kv_pages:leaked`" in own and "**no**" in bare and own.count("|") == bare.count("|") == 12


def test_a_fault_that_is_not_detected_any_more_is_exit_status_1(faults_module: Path, started: FakeEngine, capsys):
    assert cli.main(["sensitivity", *LOAD, "--json", "before.json"]) == 0
    assert cli.main(["sensitivity", *LOAD, "--baseline", "before.json"]) == 0
    assert "As in the baseline." in capsys.readouterr().out
    started.faulty["own_faults:own"] = lambda script: None
    assert cli.main(["sensitivity", *LOAD, "--baseline", "before.json"]) == 1
    assert "NOT DETECTED ANY MORE: own: was detected by kv_pages:leaked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--fault", "duble_free"], "--fault: no fault 'duble_free'; did you mean double_free"),
        (["--fault", "no_such"], "--fault: no fault 'no_such'; docs/sensitivity.md lists them"),
        (["--load", "own_faults"], "package.module:function"),
        (["--load", "own_faults:absent"], "absent"),
        (["--load", "broken_faults:own"], "ZeroDivisionError"),
        (["--load", "own_faults:own", "--load", "own_faults:own"], "two faults are named 'own'"),
        ([*LOAD, "--set", "no-such-set"], "--set: no engine configuration 'no-such-set'"),
        ([*LOAD, "--baseline", "no.json"], "no.json: cannot be read: No such file"),
        ([*LOAD, "--json", "no/folder/x.json"], "folder is not a folder"),
        ([*LOAD, "--markdown", "no/folder/x.md"], "folder is not a folder"),
        ([*LOAD, "--markdown", "."], "--markdown: . is a folder; expected the name of a file"),
        ([*LOAD, "--json", "a", "--markdown", "a"], "both name a; one would overwrite the other"),
    ],
)
def test_mistakes_are_one_line(faults_module: Path, arguments: list[str], complaint: str, capsys):
    assert cli.main(["sensitivity", *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
