"""What a user sees of the command line: exit statuses, and one line for each error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from command_line import CORE, SCRIPT, error_of
from fake_engine import FakeEngine, leak
from msgspec.structs import replace

from sr_fuzz import cli
from sr_fuzz.bugs import catalogue
from sr_fuzz.bugs.known import known_signatures
from sr_fuzz.cli.options import duration
from sr_fuzz.emit.pytest_repro import emit, to_source
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import load
from sr_fuzz.script import EngineConfig, Script
from sr_fuzz.script.errors import EngineError

# -- errors are reported in one line ---------------------------------------------------------------------------

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
        (["run", "--config", "no-such"], "--config: no engine configuration 'no-such'; `sr-fuzz configs` lists them"),
        (["run", "--config", "pagd"], "--config: no engine configuration 'pagd'; did you mean paged"),
        (["statistics", "--set", "pagd"], "--set: no engine configuration 'pagd'; did you mean paged"),
        (["statistics", "--config", "pagd"], "--config: no engine configuration 'pagd'; did you mean paged"),
        (["sensitivity", "--set", "pagd"], "--set: no engine configuration 'pagd'; did you mean paged"),
        (["run", "--known", "no/such/folder"], "no/such/folder is not a folder"),
        (["statistics", "--json", "."], "--json: . is a folder; expected the name of a file"),
        (["configs", "--sglang", "0.5.20"], "--sglang 0.5.20: goes with --check"),
        (["run", "--time", f"{'9' * 400}h"], "is no duration"),
        (["run", "--out", "/dev/null/here"], "/dev/null/here"),
        (["run", "--fault", "nonsense"], "package.module:function"),
        (["run", "--canary", "--fault", "package.module:fault"], "--canary: looked for on an engine without other"),
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


@pytest.mark.parametrize("broken", [True, False])
def test_replay_prints_the_whole_trace_when_asked_to(
    engine: FakeEngine, script_file: Path, capsys: pytest.CaptureFixture[str], broken: bool
):
    if not broken:
        engine.rule = lambda script: None
    assert cli.main(["replay", "--trace", str(script_file)]) == int(broken)
    told = capsys.readouterr().out
    lines = [record.line for record in engine.run(SCRIPT).trace]
    assert lines and all(told.count(line) == 1 for line in lines)


def test_replay_tells_another_violation_from_the_one_it_was_given(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    finding = Finding("kv_pages:leaked:radix+overlap:abc123", SCRIPT, leak(), "0.5.22")
    assert cli.main(["replay", str(emit(finding, tmp_path))]) == 1
    assert "another signature: kv_pages:leaked:radix+overlap; the file says kv" in capsys.readouterr().out


def test_replay_says_where_what_the_file_states_was_not_looked_for(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    finding = Finding("http_answers:unanswered:radix+overlap", SCRIPT, leak(), "0.5.23")
    engine.rule = lambda script: None
    engine.not_checked = {"http_answers": "no HTTP clients on this engine"}
    assert cli.main(["replay", str(emit(finding, tmp_path))]) == 0
    told = "note: http_answers was not checked in this run: no HTTP clients on this engine; try --engine server"
    assert told in capsys.readouterr().err


def test_the_limit_of_a_step_is_passed_on(engine: FakeEngine, script_file: Path, tmp_path: Path):
    cli.main(["replay", str(script_file)])
    assert engine.limit_s is None, "the engine's own"
    cli.main(["replay", str(script_file), "--limit", "5m"])
    assert engine.limit_s == 300.0
    options = ["--max-scripts", "1", "--no-canary", "--config", "overlap-chunk16", "--out", str(tmp_path)]
    cli.main(["run", "--limit", "90", *options])
    assert engine.limit_s == 90.0
    assert cli.main(["replay", str(script_file), "--limit", "0"]) == 2


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
    # Once more, from the finding, and this time with its cause: no run is needed.
    assert cli.main(["emit", str(path.with_suffix(".json")), "--out", str(tmp_path / "k"), "--cause", "a cause"]) == 0
    assert [reason for _, reason in known_signatures(tmp_path / "k").values()] == ["a cause"]
    assert len(engine.played) == ran


def test_emit_replaces_no_edited_test_unless_forced(
    engine: FakeEngine, script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    emit = ["emit", str(script_file), "--out", str(tmp_path / "new")]
    assert cli.main(emit) == 0
    path = Path(capsys.readouterr().out.strip())
    assert cli.main([*emit, "--cause", "a cause"]) == 0  # nobody has edited it
    assert "a cause" in path.read_text()
    path.write_text(edited := path.read_text() + "# mine\n")
    capsys.readouterr()
    assert "it was edited since it was written" in (told := error_of(emit, capsys)) and "--force replaces it" in told
    assert path.read_text() == edited
    assert cli.main([*emit, "--force"]) == 0
    assert path.read_text() != edited and load(path).script == SCRIPT


@pytest.mark.parametrize("option", [["--fault", "some.faults:one"], ["--sglang", "."]])
def test_an_option_that_would_have_no_effect_on_a_finding_is_refused(
    engine: FakeEngine, option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    file = emit(Finding("a:b:radix", SCRIPT, leak(), "0.5.22"), tmp_path).with_suffix(".json")
    monkeypatch.setattr("sr_fuzz.sglang_api.sources.sglang_folder", lambda source: Path(source))
    said = error_of(["emit", str(file), "--out", str(tmp_path / "o"), *option], capsys)
    assert said.startswith(f"sr-fuzz: error: {option[0]}: nothing is run, since ") and not engine.played
    assert not (tmp_path / "o").exists()


def test_what_a_file_says_is_repeated_in_bounds(engine: FakeEngine, tmp_path: Path, capsys):
    faults = tuple(f"some.faults:{'f' * 50_000}{number}" for number in range(9))
    finding = Finding("s" * 100_000, SCRIPT, leak(), "0.5.23", faults=faults, sglang_tree="/" + "t" * 100_000)
    assert cli.main(["replay", str(emit(finding, tmp_path).with_suffix(".json"))]) == 1
    told = capsys.readouterr()
    assert "another signature" in told.out and "and 5 more" in told.err and "source tree" in told.err
    assert max(map(len, (told.out + told.err).splitlines())) < 2000


def test_emit_makes_a_known_finding_of_some_releases(
    engine: FakeEngine, script_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["emit", str(script_file), "--out", str(tmp_path), "--cause", "a cause", "--releases", "<0.5.22"]
    assert cli.main(arguments) == 0
    assert len(known_signatures(tmp_path, "0.5.21")) == 1 and not known_signatures(tmp_path, "0.5.22")
    capsys.readouterr()
    assert "'old' is no version specifier" in error_of([*arguments[:-1], "old"], capsys)
    assert "--releases: goes with --cause" in error_of(["emit", str(script_file), "--releases", "<0.5.22"], capsys)


def test_emit_writes_a_known_bug_of_the_package(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    finding = Finding("kv_pages:leaked:radix+overlap:abc123", SCRIPT, leak(), "0.5.22")
    file = str(emit(finding, tmp_path).with_suffix(".json"))
    out = ["--format", "bug", "--out", str(tmp_path / "known_bugs")]
    assert "--format bug: needs --cause" in error_of(["emit", file, *out], capsys)
    assert cli.main(["emit", file, *out, "--cause", "lines 1 to 3", "--releases", "<0.5.23"]) == 0
    path = Path(capsys.readouterr().out.strip())
    # As a bug of the package it is known in the releases that have it, replayed, and played by the regressions.
    monkeypatch.setattr(catalogue, "FOLDER", str(tmp_path / "known_bugs"))
    catalogue.shipped.cache_clear()
    try:
        [(where, bug)] = catalogue.shipped().items()
        assert (where, bug.signature, bug.script, bug.engine) == (path, finding.signature, SCRIPT, "local")
        assert [bug.is_open_in(version) for version in ("0.5.22", "0.5.23")] == [True, False]
    finally:
        catalogue.shipped.cache_clear()
    assert load(path).script == SCRIPT


@pytest.mark.parametrize(
    ("finding", "says"),
    [
        ({"violation": replace(leak(), invariant="determinism")}, "determinism: two runs are compared for it"),
        ({"faults": ("some.faults:double_free",)}, "seeded fault, some.faults:double_free: no bug of SGLang"),
        ({"tried": 5}, "0 of 5 fresh runs: what did not reproduce is not written out"),
    ],
)
def test_what_is_no_bug_of_sglang_is_not_written_out_as_one(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], finding: dict, says: str
):
    file = emit(replace(Finding("a:b:radix", SCRIPT, leak(), "0.5.22"), **finding), tmp_path).with_suffix(".json")
    arguments = ["emit", str(file), "--out", str(tmp_path / "b"), "--format", "bug", "--cause", "lines 1 to 3"]
    assert says in error_of(arguments, capsys)
    assert "--cause: expected a text" in error_of([*arguments[:-1], " "], capsys)


def test_a_known_bug_that_is_written_anew_keeps_what_was_filled_in_by_hand(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = emit(Finding("a:b:radix", SCRIPT, leak(), "0.5.22"), tmp_path).with_suffix(".json")
    arguments = ["emit", str(file), "--out", str(tmp_path / "b"), "--format", "bug", "--cause"]
    assert cli.main([*arguments, "lines 1 to 3"]) == 0
    path = Path(capsys.readouterr().out.strip())
    by_hand = {"page": "docs/findings/a.md", "fixes": ["m:f"], "also_seen_as": ["a:c:*"]}
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | by_hand))
    assert cli.main([*arguments, "lines 4 to 6"]) == 0
    capsys.readouterr()
    bug = catalogue.read_bug(path)
    assert (bug.page, bug.fixes, bug.also_seen_as) == ("docs/findings/a.md", ("m:f",), ("a:c:*",))
    assert bug.reason == "lines 4 to 6"
    other = msgspec.json.decode(path.read_bytes()) | {"signature": "x:y:radix"}
    path.write_bytes(msgspec.json.encode(other))
    assert "there is another bug, x:y:radix, in this file" in error_of([*arguments, "lines 4 to 6"], capsys)
    path.write_text("{")
    assert f"{path}: not JSON" in error_of([*arguments, "lines 4 to 6"], capsys)


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


@pytest.mark.parametrize("other", [("--engine", "server"), ("--differential", "3")])
def test_several_searchers_are_for_the_plain_local_engine(other: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    told = error_of(["run", "--workers", "2", *other], capsys)
    assert f"--workers: several search on the plain local engine only, so not with {other[0]}" in told
