"""An emitted test explains itself: how to read it, how to run it, where to look, which known bug it may be."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from sr_fuzz.invariants import NAMES

from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.campaign.events import FindingTally, Summary
from sr_fuzz.emit import commands
from sr_fuzz.emit.commands import pytest_command, sr_fuzz_command
from sr_fuzz.emit.explanation import how_to_run, like, relatives, script_legend, where_to_look
from sr_fuzz.emit.issue import TITLE_LENGTH, issue_text
from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.outcome import Finding, StepRecord, Violation
from sr_fuzz.report.summary import how_to_go_on
from sr_fuzz.script import Abort, EngineConfig, Pause, Prompt, Script, StartReq, Step
from sr_fuzz.sglang_api import places
from sr_fuzz.sglang_api.places import located, package_of
from sr_fuzz.sglang_api.versions import installed_package, version_in

SCRIPT = Script(EngineConfig(), (StartReq("r0", Prompt(1, 40), 4), Step(2), Abort("r0"), Pause("retract"), Step(3)))
LEAK = Violation("kv_pages", "leaked", "page 5 was last owned by r0", 5, "end")
HERE = version_in(installed_package())
FINDING = Finding("kv_pages:leaked:radix+overlap", SCRIPT, LEAK, HERE, 5, 5)

TRACE = (
    StepRecord(1, ("r0 = start_req(1:40, new=4)", "r1 = start_req(2:3, new=1)"), mode="extend", batch=("r0", "r1")),
    StepRecord(2, mode="decode", batch=("r0",), running=("r0",), sent=("r0 +1", "r1 +1 finish:length")),
    StepRecord(3, ("pause(retract)",), waiting=("r0",), paused=True),
    StepRecord(4, ("abort(r0)",), sent=("r0 abort",)),
    StepRecord(5, mode="decode", batch=("r1",)),
)


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "program", lambda name: name)


# -- how to run it ---------------------------------------------------------------------------------------------


def test_the_command_names_the_path_from_here_and_where_it_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    test = tmp_path / "my findings" / "test_x.py"
    assert pytest_command(FINDING, test) == "pytest 'my findings/test_x.py'"
    other = replace(FINDING, sglang_version="0.5.16", faults=("my.faults:one", "two:b"))
    options = "--sr-sglang 0.5.16 --sr-fault my.faults:one --sr-fault two:b"
    assert pytest_command(other, Path("test_x.py")) == f"pytest {options} test_x.py"
    told = sr_fuzz_command(other, "replay", Path("x.json"), "--trace")
    assert told == "sr-fuzz replay x.json --trace --sglang 0.5.16 --fault my.faults:one --fault two:b"
    tree = replace(FINDING, sglang_tree="/a tree", sglang_version="unknown (tree /a tree)")
    assert pytest_command(tree, Path("/elsewhere/t.py")) == "pytest --sr-sglang '/a tree' /elsewhere/t.py"


def test_a_program_is_named_as_it_can_be_called_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "pytest"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    assert commands.program("pytest") == ".venv/bin/pytest"
    monkeypatch.setenv("PATH", str(folder))
    assert commands.program("pytest") == "pytest"


def test_the_form_for_sglang_is_named_or_why_there_is_none():
    told = "\n".join(how_to_run(FINDING, Path("test_x.py")))
    assert "pytest test_x.py" in told and "sr-fuzz replay test_x.json --trace" in told
    assert "sr-fuzz emit test_x.json --format sglang" in told
    streams = replace(FINDING, violation=replace(LEAK, invariant="streams"))
    told = "\n".join(how_to_run(streams, Path("test_x.py")))
    assert "--format sglang" not in told and "what is streamed to a client cannot be seen" in told
    ranks = replace(FINDING, script=Script(EngineConfig(pp_size=2), SCRIPT.actions))
    assert "replay test_x.json --trace --engine server" in "\n".join(how_to_run(ranks, Path("test_x.py")))


@pytest.mark.parametrize(
    ("script", "said", "unsaid"),
    [
        (SCRIPT, "a prompt of family 1", "`[…]`"),
        (Script(EngineConfig(page_size=4), (Step(),)), "`[…]` names what differs", "start_req"),
        (Script(EngineConfig(), (StartReq("r1", Prompt(0, 60, after="r0")),)), "the next turn of a chat", "step("),
    ],
)
def test_the_legend_explains_what_is_there_and_no_more(script: Script, said: str, unsaid: str):
    [told] = script_legend(script)
    assert said in told and unsaid not in told


# -- where to look ---------------------------------------------------------------------------------------------


def every_place() -> list[places.Place]:
    tables = (places.BY_ACTION, places.BY_MODE, places.BY_INVARIANT)
    return [place for table in tables for of in table.values() for place in of] + [*places.RETRACTED, *places.ANSWERED]


@pytest.mark.parametrize("place", dict.fromkeys(every_place()), ids=str)
def test_each_function_that_is_named_is_in_the_installed_sglang(place: places.Place):
    found = located(place, installed_package())
    assert found is not None
    where, _, name = found.partition(" ")
    file, _, line = where.partition(":")
    assert f"def {name}(" in (installed_package() / "srt" / file).read_text().splitlines()[int(line) - 1]


def test_only_invariants_have_such_functions():
    assert set(places.BY_INVARIANT) <= set(NAMES)


def test_a_silent_violation_names_what_last_touched_the_request_it_speaks_of():
    told = where_to_look(FINDING, TRACE)
    assert [line.split()[-1] for line in told[1:]] == [
        "release_kv_cache",
        "stream_output",
        "abort_request",
        "retract_decode",
        "release_req",
        "pause_generation",
        "update_running_batch",
        "process_batch_result_decode",
        "get_new_batch_prefill",
        "process_batch_result_prefill",
        "handle_generate_request",
    ]
    assert any("step 3: r0 queued again" in line for line in told)
    assert not any("r1" in line.partition(" of ")[0] for line in told[1:]), "r1 is not what broke"


def test_an_error_names_the_lines_of_its_innermost_frames():
    stack = '''File "sglang/srt/managers/scheduler.py", line 77, in run_batch
    x()
  File "sglang/srt/mem_cache/common.py", line 5, in free
    raise RuntimeError("no")'''
    places_of = ("mem_cache/common.py:free: raise RuntimeError(\"no\")", "managers/scheduler.py:run_batch: x()")
    broken = replace(FINDING, violation=Violation("exception", "RuntimeError", "no", 3, "step", places_of, stack))
    assert where_to_look(broken, TRACE)[1:] == [
        '    mem_cache/common.py:5 free: raise RuntimeError("no")',
        "    managers/scheduler.py:77 run_batch: x()",
    ]


def test_a_release_that_is_not_here_has_functions_without_lines():
    assert package_of("0.0.1", None) is None and package_of("nonsense", None) is None
    told = where_to_look(replace(FINDING, sglang_version="0.0.1"), TRACE)
    assert told[1].endswith("mem_cache/common.py release_kv_cache")


# -- which known bug it may be ---------------------------------------------------------------------------------


def test_a_known_bug_with_the_same_rule_is_named_with_the_command_that_tells(tmp_path: Path):
    stuck = replace(LEAK, invariant="liveness", rule="stuck_waiting")
    finding = replace(FINDING, signature="liveness:stuck_waiting:radix+overlap+paged+new", violation=stuck)
    source = emit(finding, tmp_path, trace=TRACE).read_text()
    assert "May be the same bug as" in source and "liveness_stuck_waiting_fcd3c6" in source
    assert ".json --fault sr_fuzz.faults.fixes.admission:refused_at_the_door" in source
    assert "May be the same bug as" not in emit(finding, tmp_path / "known", known_cause="it is known").read_text()


def test_what_has_nothing_in_common_or_is_mended_in_that_release_is_not_named():
    assert relatives(replace(FINDING, signature="usage:wrong:radix+overlap"), Path("test_x.py")) == []
    lost = replace(FINDING, signature="nobody_lost:lost:radix+overlap", sglang_version="0.5.23")
    assert like(lost) == []
    [(_, bug)] = like(replace(lost, sglang_version="0.5.21"))
    assert bug.releases is not None


def test_an_error_elsewhere_in_sglang_is_no_relative():
    violation = Violation("exception", "RuntimeError", "no", 3, "step", ("a.py:b: c",))
    assert like(replace(FINDING, signature="exception:RuntimeError:radix+overlap:123456", violation=violation)) == []


# -- a text for an issue, and the last lines of a campaign -----------------------------------------------------


def test_an_issue_has_the_fields_of_sglangs_form():
    told = issue_text(FINDING, TRACE, cause="scheduler.py:5675 forgets it", test="import unittest")
    title, *rest = told.splitlines()
    assert title.startswith("Title: [Bug] ") and len(title) <= TITLE_LENGTH + len("Title: ")
    heads = [line for line in rest if line.startswith("### ")]
    assert heads == ["### Describe the bug", "### Reproduction", "### Environment"]
    assert "Cause: scheduler.py:5675 forgets it" in told and "```python\nimport unittest\n```" in told
    without = issue_text(FINDING, TRACE)
    assert "release_kv_cache" in without and "sr-fuzz replay script.json" in without and '"start_req"' in without


def test_a_campaign_ends_with_the_commands_for_what_it_found():
    done = Summary()
    assert how_to_go_on(done, Path("findings")) == []
    done.findings["a"] = FindingTally("new", LEAK, 1, Path("findings/test_x.py"), "", finding=FINDING)
    told = "\n".join(how_to_go_on(done, Path("findings")))
    assert "  pytest findings/test_x.py" in told
    assert "  sr-fuzz emit findings/test_x.json --format sglang" in told
    assert "  sr-fuzz emit findings/test_x.json --format issue" in told


def test_each_shipped_bug_can_be_told():
    """No file of a known bug makes the writer stumble."""
    for bug in shipped().values():
        if bug.violation is not None:
            finding = Finding(bug.signature, bug.script, bug.violation, bug.sglang_version or HERE)
            assert where_to_look(finding, bug.trace) and how_to_run(finding, Path("x.py"))
            told = issue_text(finding, bug.trace)
            assert all(f"\n### {head}\n" in told for head in ("Describe the bug", "Reproduction", "Environment"))
