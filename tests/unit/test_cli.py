"""What a user sees of the command line: exit statuses, one line for what is wrong, and the story of a campaign."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from fake_engine import FakeEngine, leak
from hypothesis import strategies as st
from rich.console import Console

from sr_fuzz import cli
from sr_fuzz.campaign.events import Emitted, Event, FindingKnown, FindingNew, Finished, Minimised, Started, Summary
from sr_fuzz.campaign.known import known_signatures
from sr_fuzz.campaign.loop import run_campaign
from sr_fuzz.canary import canary
from sr_fuzz.cli import engines, sglang_own
from sr_fuzz.cli.options import EngineKind, duration
from sr_fuzz.emit import emit, to_source
from sr_fuzz.engine.sglang_own import SglangRun
from sr_fuzz.errors import EngineError
from sr_fuzz.outcome import Finding, Violation
from sr_fuzz.replay import load
from sr_fuzz.report.terminal import Terminal
from sr_fuzz.script import Abort, Continue, EngineConfig, FlushCache, Pause, Prompt, Script, StartReq, Step, to_json

CORE = (StartReq("r0", Prompt(length=1), 1), Abort("r0"))
SCRIPT = Script(EngineConfig(), (StartReq("r0", Prompt(length=30)), Step(3), StartReq("r1"), Abort("r0"), FlushCache()))


NOISE = (Step(1), Step(4), Pause("retract"), Pause("in_place"), Continue(), FlushCache(), Abort("r0"), Abort("r1"))

SCRIPTS = st.builds(
    lambda config, one, two: Script(config, (StartReq("r0", Prompt(length=30)), *one, StartReq("r1"), *two)),
    st.sampled_from([EngineConfig(), EngineConfig(max_total_tokens=96)]),
    st.lists(st.sampled_from(NOISE), max_size=20),
    st.lists(st.sampled_from(NOISE), max_size=20),
)
"""Scripts for campaigns: a million of them, so that the tests of this file do not hang on the real strategies."""


def leak_on_abort(script: Script) -> Violation | None:
    started: set[str] = set()
    for action in script.actions:
        if isinstance(action, StartReq):
            started.add(action.name)
        elif isinstance(action, Abort) and action.name in started:
            return leak()
    return None


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """What the commands run on, in place of a real engine. Records the faults it was started with."""
    fake = FakeEngine(leak_on_abort, {canary.path: lambda script: leak(message="the canary's page")})
    fake.kinds = []

    @contextmanager
    def start(
        faults: Sequence[str] | None,
        kind: EngineKind = EngineKind.LOCAL,
        configs: int = 1,
        sglang: str | None = None,
    ) -> Iterator[FakeEngine]:
        fake.kinds.append((kind.value, configs))
        if faults == ["no.such:fault"]:
            raise EngineError("the process that imports SGLang died\nTraceback\n  ...\nImportError: libcuda.so")
        yield fake

    monkeypatch.setattr(engines, "start", start)
    return fake


@pytest.fixture
def script_file(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_bytes(to_json(SCRIPT, indent=2))
    return path


# -- what is wrong is said in one line -------------------------------------------------------------------------

GOOD = {"config": {}, "actions": [{"action": "start_req", "name": "r0"}], "format": 1}

BAD_FILES = {
    "empty": (b"", "not JSON"),
    "not JSON": (b"{nope", "not JSON"),
    "binary": (bytes(range(256)), "not JSON"),
    "list": (b"[]", "expected an object"),
    "unknown field": (msgspec.json.encode(GOOD | {"colour": 1}), "colour"),
    "unknown action": (msgspec.json.encode(GOOD | {"actions": [{"action": "explode"}]}), "actions[0]"),
    "out of range": (msgspec.json.encode(GOOD | {"config": {"page_size": 0}}), "config.page_size"),
    "wrong type": (msgspec.json.encode(GOOD | {"actions": "all of them"}), "actions"),
    "two of a name": (msgspec.json.encode(GOOD | {"actions": GOOD["actions"] * 2}), "actions[1].name"),
    "future format": (msgspec.json.encode(GOOD | {"format": 99}), "format 1, the file has 99"),
    "broken finding": (b'{"format": 1, "finding": null}', "finding: expected an object"),
}


def error_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sr-fuzz: error: ")
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err


@pytest.mark.parametrize("command", ["replay", "minimise", "emit", "confirm"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line(command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content, complaint = BAD_FILES[name]
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    message = error_of([command, str(path)], capsys)
    assert str(path) in message and complaint in message


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frobnicate"], "frobnicate"),
        (["run", "--frobnicate"], "--frobnicate"),
        (["run", "--time", "soon"], "'soon' is no duration"),
        (["run", "--time", "0s"], "'0s' is no duration"),
        (["run", "--seed", "x"], "--seed"),
        (["run", "--max-scripts", "0"], "--max-scripts"),
        (["run", "--config", "no-such"], "no engine configuration 'no-such'"),
        (["run", "--known", "no/such/folder"], "no/such/folder is not a folder"),
        (["run", "--out", "/dev/null/here"], "/dev/null/here"),
        (["run", "--fault", "nonsense"], "package.module:function"),
        (["replay"], "FILE"),
        (["replay", "no/such/file"], "no/such/file: cannot be read: No such file"),
        (["replay", "."], ".: a directory"),
        (["replay", "a", "b"], "b"),
        (["minimise", "x", "--max-runs", "none"], "--max-runs"),
        (["emit", "x", "--format", "cobol"], "--format"),
        (["confirm", "x", "--on", "mars"], "--on"),
        (["confirm", "x", "-n", "0"], "-n"),
    ],
)
def test_a_bad_command_line_is_one_line(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    monkeypatch.chdir(tmp_path)
    assert complaint in error_of(arguments, capsys)


def test_an_engine_that_cannot_run_is_one_line_with_the_reason(
    engine: FakeEngine, script_file: Path, capsys: pytest.CaptureFixture[str]
):
    message = error_of(["replay", str(script_file), "--fault", "no.such:fault"], capsys)
    assert message == "sr-fuzz: error: the process that imports SGLang died: ImportError: libcuda.so\n"


def test_help_and_mistakes_do_not_wait_for_sglang():
    code = """
import sys
from sr_fuzz import cli
assert cli.main(["--help"]) == 0
assert cli.main(["replay", "no/such/file"]) == 2
slow = {"sglang", "torch", "hypothesis"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("60s", 60), ("0.5s", 0.5), ("5m", 300), ("1h", 3600), ("1h30m", 5400)]
)
def test_durations(text: str, seconds: float):
    assert duration(text) == seconds


# -- replay, minimise, emit ------------------------------------------------------------------------------------


def test_replay_says_whether_it_reproduces(engine: FakeEngine, script_file: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["replay", str(script_file)]) == 1
    assert "page 5 is owned by nobody" in capsys.readouterr().out
    engine.rule = lambda script: None
    assert cli.main(["replay", str(script_file)]) == 0
    assert "not reproduced" in capsys.readouterr().out
    assert engine.played == [SCRIPT, SCRIPT]


def test_replay_tells_another_violation_from_the_one_it_was_given(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    finding = Finding("kv_pages:leaked:radix+overlap:abc123", SCRIPT, leak(), "0.5.22")
    assert cli.main(["replay", str(emit(finding, tmp_path))]) == 1
    assert "another signature: kv_pages:leaked:radix+overlap; the file says kv" in capsys.readouterr().out


def test_replay_mentions_the_faults_a_finding_was_made_with(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    finding = Finding("a:b", SCRIPT, leak(), "0.5.23", faults=("some.faults:double_free",))
    cli.main(["replay", str(emit(finding, tmp_path).with_suffix(".json"))])
    assert "--fault some.faults:double_free" in capsys.readouterr().err


def test_minimise_prints_the_script_and_writes_the_finding(
    engine: FakeEngine, script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "small.json"
    assert cli.main(["minimise", str(script_file), "--out", str(out)]) == 0
    assert capsys.readouterr().out == to_source(Script(EngineConfig(), CORE)) + "\n"
    finding = load(out).finding
    assert finding is not None
    assert (finding.script.actions, finding.reliability) == (CORE, "5 of 5 fresh runs")


@pytest.mark.parametrize("command", ["minimise", "emit"])
def test_there_is_nothing_to_do_with_a_script_that_breaks_nothing(
    engine: FakeEngine, command: str, script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    engine.rule = lambda script: None
    assert f"nothing to {command}" in error_of([command, str(script_file), "--out", str(tmp_path / "o")], capsys)


def test_emit_makes_a_known_finding_of_a_file(
    engine: FakeEngine, script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["emit", str(script_file), "--out", str(tmp_path / "new")]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert load(path).script == SCRIPT
    ran = len(engine.played)
    # Again, from the finding, and this time with its cause: no run is needed.
    assert cli.main(["emit", str(path.with_suffix(".json")), "--out", str(tmp_path / "k"), "--cause", "a cause"]) == 0
    assert [reason for _, reason in known_signatures(tmp_path / "k").values()] == ["a cause"]
    assert len(engine.played) == ran


def test_emit_makes_a_known_finding_of_some_releases(
    engine: FakeEngine, script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["emit", str(script_file), "--out", str(tmp_path), "--cause", "a cause", "--releases", "<0.5.22"]
    assert cli.main(arguments) == 0
    assert len(known_signatures(tmp_path, "0.5.21")) == 1 and not known_signatures(tmp_path, "0.5.22")
    capsys.readouterr()
    assert "'old' is no version specifier" in error_of([*arguments[:-1], "old"], capsys)
    assert "--releases: goes with --cause" in error_of(["emit", str(script_file), "--releases", "<0.5.22"], capsys)


# -- on SGLang's own scripted runtime, and on the server --------------------------------------------------------


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> list[Path]:
    """Emitted tests that were played on the local engine; each complains."""
    played: list[Path] = []

    def play(path: Path, config: EngineConfig) -> str | None:
        played.append(path)
        return "AssertionError: pages that nobody owns: [5]"

    monkeypatch.setattr(sglang_own, "complaints", lambda engine: play)
    return played


def test_emit_writes_a_test_for_sglang(
    complaints: list[Path], script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new"), "--cause", "a cause"]
    assert cli.main(arguments) == 0
    path = Path(capsys.readouterr().out.strip())
    source = path.read_text()
    assert path.parent == tmp_path / "new" and path.name.startswith("test_sglang_kv_pages_leaked_")
    assert "r0 = t.start_req(prompt_len=30, prompt_token=" in source and "# Open bug: a cause" in source
    assert len(complaints) == 1


def test_emit_runs_what_it_translated(engine: FakeEngine, complaints: list[Path], script_file: Path, tmp_path: Path):
    assert cli.main(["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new")]) == 0
    original, translated = engine.played
    assert original == SCRIPT
    assert all(a.prompt.uniform for a in translated.actions if isinstance(a, StartReq))


def test_a_finding_that_is_lost_in_translation_is_not_written(
    engine: FakeEngine, complaints: list[Path], script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def rule(script: Script) -> Violation | None:
        uniform = any(a.prompt.uniform for a in script.actions if isinstance(a, StartReq))
        return Violation("liveness", "stuck_waiting", "r0 waits", 9) if uniform else leak()

    engine.rule = rule
    message = error_of(["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new")], capsys)
    assert "the script shows liveness: stuck_waiting instead of kv_pages: leaked" in message
    assert not list((tmp_path / "new").iterdir())


def test_a_test_that_would_see_nothing_is_not_written(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, script_file: Path, tmp_path: Path, capsys
):
    monkeypatch.setattr(sglang_own, "complaints", lambda engine: lambda path, config: None)
    message = error_of(["emit", str(script_file), "--format", "sglang", "--out", str(tmp_path / "new")], capsys)
    assert "kv_pages: leaked does not show in what SGLang's scripted runtime lets a test look at" in message
    assert not list((tmp_path / "new").iterdir())


@pytest.fixture
def sglang_runs(monkeypatch: pytest.MonkeyPatch, complaints: list[Path]) -> list[SglangRun]:
    """How the coming runs on SGLang's own scripted runtime go, in order."""
    runs: list[SglangRun] = []

    def run(path: Path, faults: Sequence[str]) -> SglangRun:
        assert path.is_file()
        return runs.pop(0)

    monkeypatch.setattr(sglang_own, "run", run)
    return runs


PASSED = SglangRun(True, False, "1 passed", "")
FAILED = SglangRun(False, True, "test_x: AssertionError: pages that nobody owns: [5]", "")
UNRUN = SglangRun(False, False, "could not be run: not over after 300 s", "")


@pytest.mark.parametrize(
    ("runs", "status", "verdict"),
    [
        ([FAILED], 1, "reproduced: in 1 of 1 runs on SGLang's own scripted runtime"),
        ([PASSED, FAILED], 1, "reproduced: in 1 of 2 runs"),
        ([PASSED], 0, "not reproduced: in 0 of 1 runs"),
    ],
)
def test_confirm_says_whether_sglangs_own_runtime_shows_it(
    sglang_runs: list[SglangRun], runs: list[SglangRun], status: int, verdict: str, script_file: Path, capsys
):
    sglang_runs += runs
    assert cli.main(["confirm", str(script_file), "--on", "sglang", "-n", str(len(runs))]) == status
    output = capsys.readouterr().out
    assert verdict in output and "AssertionError: pages that nobody owns: [5]" in output


def test_confirm_tells_a_run_that_did_not_work_from_one_that_shows_nothing(
    sglang_runs: list[SglangRun], script_file: Path, capsys: pytest.CaptureFixture[str]
):
    sglang_runs.append(UNRUN)
    assert cli.main(["confirm", str(script_file), "--on", "sglang"]) == 2
    complaint = "sr-fuzz: error: SGLang's own scripted runtime could not be run: not over after 300 s\n"
    assert capsys.readouterr().err == complaint


def test_confirm_on_the_server(
    engine: FakeEngine, script_file: Path, capsys: pytest.CaptureFixture[str]
):
    shown = iter([None, leak(), None])

    engine.rule = lambda script: next(shown)
    assert cli.main(["confirm", str(script_file), "-n", "2"]) == 1
    assert engine.kinds == [("server", 1)]
    assert "reproduced: in 1 of 2 runs on the server engine" in capsys.readouterr().out
    assert cli.main(["confirm", str(script_file), "--on", "server"]) == 0


def test_commands_play_on_the_engine_that_is_asked_for(engine: FakeEngine, script_file: Path, tmp_path: Path):
    cli.main(["replay", str(script_file), "--engine", "persistent"])
    cli.main(["minimise", str(script_file), "--engine", "server"])
    cli.main(["run", "--engine", "server", "--max-scripts", "1", "--out", str(tmp_path / "out")])
    cli.main(["run", "--max-scripts", "1", "--out", str(tmp_path / "out")])
    assert engine.kinds[:2] == [("persistent", 1), ("server", 1)]
    assert engine.kinds[2][0] == "server" and engine.kinds[2][1] <= 3, "as many servers as it can keep"
    assert engine.kinds[3][0] == "local" and engine.kinds[3][1] > 3


def test_more_configurations_than_a_live_engine_keeps_take_turns(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    engine.rule = lambda script: None
    arguments = ["--engine", "persistent", "--config", "default", "--max-scripts", "1", "--no-canary"]
    assert cli.main(["run", *arguments, "--out", str(tmp_path)]) == 0
    assert engine.kinds == [("persistent", 5)]
    assert "the configurations take turns, 4 + 5 + 5 of them for 20 s each" in capsys.readouterr().out


def test_there_is_nothing_to_confirm_in_a_script_that_breaks_nothing(
    engine: FakeEngine, complaints: list[Path], script_file: Path, capsys: pytest.CaptureFixture[str]
):
    engine.rule = lambda script: None
    assert "nothing to confirm" in error_of(["confirm", str(script_file), "--on", "sglang"], capsys)


# -- run -------------------------------------------------------------------------------------------------------


def campaign(engine: FakeEngine, out: Path, **options: object) -> tuple[Summary, list[Event]]:
    events: list[Event] = []
    settings: dict[str, object] = dict(scripts=SCRIPTS, time_s=600, seed=1, out=out, known={}, max_scripts=60)
    summary = run_campaign(engine, on_event=events.append, **(settings | options))  # type: ignore[arg-type]
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    return summary, events


def kinds(events: list[Event], *wanted: type) -> list[type]:
    return [type(event) for event in events if isinstance(event, wanted)]


def test_a_new_finding_is_minimised_confirmed_and_written_once(tmp_path: Path):
    summary, events = campaign(FakeEngine(leak_on_abort), tmp_path)
    assert kinds(events, FindingNew, Minimised, Emitted) == [FindingNew, Minimised, Emitted]
    (tally,) = summary.findings.values()
    assert (tally.status, summary.scripts) == ("new", 60)
    assert tally.count == 1 + kinds(events, FindingKnown).count(FindingKnown) > 1
    assert tally.finding is not None and tally.path is not None
    assert (tally.finding.script.actions, tally.finding.reliability) == (CORE, "5 of 5 fresh runs")
    assert load(tally.path).script.actions == CORE


def test_a_known_finding_is_only_counted(tmp_path: Path):
    listed = tmp_path / "test_known.py"
    known = {"kv_pages:leaked:radix+overlap": (listed, "a cause")}
    summary, events = campaign(FakeEngine(leak_on_abort), tmp_path, known=known)
    (tally,) = summary.findings.values()
    assert (tally.status, tally.reason, tally.path) == ("known", "a cause", listed)
    assert not kinds(events, FindingNew, Emitted) and not list(tmp_path.iterdir())


def test_one_finding_does_not_hide_another(tmp_path: Path):
    def rule(script: Script) -> Violation | None:
        if any(isinstance(a, Pause) for a in script.actions):
            return Violation("pause", "output grew", "r0 got 3 tokens", 5)
        return leak_on_abort(script)

    summary, _ = campaign(FakeEngine(rule), tmp_path)
    assert set(summary.findings) == {"pause:output grew:radix+overlap", "kv_pages:leaked:radix+overlap"}
    assert len(list(tmp_path.glob("test_*.py"))) == 2


def test_a_campaign_says_what_ran(tmp_path: Path):
    summary, _ = campaign(FakeEngine(lambda script: None), tmp_path, max_scripts=150)
    assert (summary.scripts, summary.steps, summary.forwards) == (150, 1500, 1050)
    assert sum(tally.scripts for tally in summary.configs.values()) == 150
    assert summary.checks == {"kv_pages": 1500}


def test_no_script_is_played_twice_and_the_seed_decides(tmp_path: Path):
    one, same, other = (FakeEngine(lambda script: None) for _ in range(3))
    campaign(one, tmp_path, max_scripts=120)
    campaign(same, tmp_path, max_scripts=120)
    campaign(other, tmp_path, max_scripts=120, seed=2)
    assert one.played == same.played
    assert len(set(one.played)) == 120
    assert len(set(one.played) & set(other.played)) < 60


def test_a_campaign_ends_when_the_time_is_up(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> None:
        now[0] += 1.0

    summary, _ = campaign(FakeEngine(rule), tmp_path, time_s=20, max_scripts=None, clock=lambda: now[0])
    assert (summary.scripts, summary.elapsed_s, summary.scripts_per_s) == (20, 20.0, 1.0)


def test_of_several_strategies_each_has_its_share_of_the_time(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> None:
        now[0] += 1.0

    def only(pool: int) -> st.SearchStrategy[Script]:
        config = EngineConfig(max_total_tokens=pool)
        return st.builds(lambda n: Script(config, (StartReq("r0"), Step(n))), st.integers(1, 9999))

    engine = FakeEngine(rule)
    campaign(engine, tmp_path, scripts=[only(96), only(128)], time_s=40, max_scripts=None, clock=lambda: now[0])
    assert [script.config.max_total_tokens for script in engine.played] == [96] * 20 + [128] * 20


def test_a_campaign_ends_when_there_are_no_other_scripts(tmp_path: Path):
    few = st.sampled_from([Script(EngineConfig(), (StartReq("r0"), Step(n))) for n in range(1, 6)])
    summary, _ = campaign(FakeEngine(lambda script: None), tmp_path, scripts=few, max_scripts=None)
    assert summary.scripts == 5


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal: whoever starts the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_with_the_summary_and_loses_no_finding(tmp_path: Path):
    runs = [0]

    def rule(script: Script) -> Violation | None:
        violation = leak_on_abort(script)
        runs[0] += violation is not None
        if runs[0] == 3:  # in the midst of minimising
            signal.raise_signal(signal.SIGINT)
        return violation

    summary, events = campaign(FakeEngine(rule), tmp_path)
    assert summary.interrupted
    (tally,) = summary.new
    assert tally.path is not None and leak_on_abort(load(tally.path).script)


def test_a_hang_is_not_minimised_for_ever(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> Violation | None:
        now[0] += 20.0
        return Violation("hang", "no step", "20 s without a turn", 4)

    engine = FakeEngine(rule)
    campaign(engine, tmp_path, max_scripts=1, clock=lambda: now[0])
    assert len(engine.played) < 15


def test_an_engine_that_dies_ends_the_campaign_after_the_summary(tmp_path: Path):
    engine = FakeEngine(lambda script: None)

    def rule(script: Script) -> None:
        if len(engine.played) == 10:
            raise EngineError("the zygote process is gone")

    engine.rule = rule
    events: list[Event] = []
    with pytest.raises(EngineError):
        run_campaign(engine, scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path, known={}, on_event=events.append)
    last = events[-1]
    assert isinstance(last, Finished) and last.summary.scripts == 9


def test_run_exits_0_with_or_without_findings(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--max-scripts", "40", "--seed", "5", "--config", "overlap-chunk16", "--out", "repros"]
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    (repro,) = Path("repros").glob("test_*.py")
    for wanted in ("seed 5", "new finding kv_pages: leaked", f"pytest {repro}", "overlap-chunk16", "40 scripts in"):
        assert wanted in output
    engine.rule = lambda script: None
    assert cli.main(arguments) == 0
    assert "No violation found." in capsys.readouterr().out


# -- the terminal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interactive", [True, False])
def test_a_listing_of_a_campaign_is_plain_text_whatever_it_holds(tmp_path: Path, interactive: bool):
    """Brackets are markup to the terminal library; messages and signatures are full of them."""
    message = "pages [1, 2] of [/bold]: [red]"

    def rule(script: Script) -> Violation | None:
        return leak(message=message) if leak_on_abort(script) else None

    output = StringIO()
    console = Console(file=output, width=200, force_terminal=interactive, force_interactive=interactive, no_color=True)
    with Terminal(console) as terminal:
        run_campaign(
            FakeEngine(rule), scripts=SCRIPTS, time_s=600, seed=1, out=tmp_path,
            known={}, on_event=terminal, max_scripts=40, name_of=lambda config: "[paged]",
        )  # fmt: skip
    assert message in output.getvalue()
    assert "[paged]" in output.getvalue()
    assert "Findings: 1 new, 0 known." in output.getvalue()


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(tmp_path: Path):
    now = [0.0]

    def rule(script: Script) -> None:
        now[0] += 1.0

    output = StringIO()
    with Terminal(Console(file=output, width=200), clock=lambda: now[0]) as terminal:
        run_campaign(
            FakeEngine(rule), scripts=SCRIPTS, time_s=35, seed=1, out=tmp_path, known={},
            on_event=terminal, clock=lambda: now[0],
        )  # fmt: skip
    lines = [line for line in output.getvalue().splitlines() if "findings:" in line]
    assert [line.split(" s ")[0].strip() for line in lines] == ["10", "20", "30"]


# -- configs ---------------------------------------------------------------------------------------------------


def test_configs_says_what_needs_more_than_a_cpu(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    remarks = {line.split()[0]: line.rpartition("  [")[2] for line in lines if line.endswith("]")}
    assert remarks == {
        "tensor2": "needs the server engine]",
        "pipeline2": "needs the server engine]",
        "data2": "needs the server engine]",
    }


def test_configs_checked_says_what_is_refused_and_why(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def start(config: EngineConfig) -> None:
        if config.prefix_tree == "legacy":
            raise EngineError("this SGLang has no such tree\nand a traceback")

    monkeypatch.setattr(engine, "start", start, raising=False)
    assert cli.main(["configs", "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("legacy-chunk16" in line and line.endswith("[refused: this SGLang has no such tree]") for line in lines)
    assert any("unified-chunk16" in line and line.endswith("[runs]") for line in lines)
