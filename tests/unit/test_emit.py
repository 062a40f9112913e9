"""What a user relies on: a repro is a readable pytest test, and every file of a finding can be read back."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from msgspec.structs import replace
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.emit import commands
from sr_fuzz.emit.pytest_repro import WIDTH, emit, to_source
from sr_fuzz.emit.replacing import KeptBetter
from sr_fuzz.outcome import Finding, Outcome, StepRecord, Violation, signature
from sr_fuzz.outcome.files import load
from sr_fuzz.script import (
    Abort,
    AbortAll,
    AdvanceClock,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    Pause,
    Prompt,
    Release,
    Script,
    ScriptError,
    StartReq,
    Step,
    StepUntil,
)

SCRIPT = Script(
    EngineConfig(chunked_prefill_size=8),
    (
        StartReq("r0", Prompt(1, 40, 3), 4, ignore_eos=True, stop_token_ids=(7,)),
        StepUntil("r0", "nth_chunk", nth=2),
        Pause("in_place"),
        Abort("r0", await_arrival=False),
        Step(3),
    ),
)

FINDING = Finding(
    signature="kv_pages:leaked:radix+overlap:1a2b3c",
    script=SCRIPT,
    violation=Violation(
        "kv_pages",
        "leaked",
        "page 5 is in none of: free list, tree, requests, exhauster; it was last owned by r0",
        6,
        "end",
        ("managers/scheduler.py:abort_request: self.chunked_req = None",),
    ),
    sglang_version="0.5.23",
    reproduced=5,
    tried=5,
    original_actions=34,
    reruns=23,
)

TRACE = (
    StepRecord(4, ("pause(in_place)", "abort(r0, await_arrival=False)", "step(3)"), paused=True, free_pages=112),
    StepRecord(5, mode="decode", batch=("r0",), free_pages=111, free_rows=5, sent=("r0 abort",)),
)

EXPECTED = '''\
"""kv_pages: leaked, at the end, at step 6.

page 5 is in none of: free list, tree, requests, exhauster; it was last owned by r0

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 34 actions to 5 in 23 runs.

To run it (it fails while the bug is there), and to see each step:
    pytest FOLDER/test_kv_pages_leaked_HASH.py
    sr-fuzz replay FOLDER/test_kv_pages_leaked_HASH.json --trace
The same as a test for SGLang's own suite, where sr_fuzz is not needed:
    sr-fuzz emit FOLDER/test_kv_pages_leaked_HASH.json --format sglang

Script:
    [chunked_prefill_size=8] r0 = start_req(1:40+3, new=4, ignore_eos, stop_token_ids=(7,));
    step_until(r0, nth_chunk, nth=2); pause(in_place); abort(r0, await_arrival=False); step(3)
`[…]` names what differs from the default engine; `r0 = start_req(1:40+3, new=8)` starts request r0: a prompt of family
1 (prompts of a family begin alike) of 40 tokens, the last 3 of them its own (`+3`), and at most 8 new tokens;
`step_until(r0, stage)` makes scheduler steps until r0 is at that stage; `step(3)` makes three scheduler steps.

Last steps:
          | pause(in_place)
          | abort(r0, await_arrival=False)
          | step(3)
       4  paused                        free 112p  0r
       5  decode[r0]                    free 111p  5r  -> r0 abort
A line is a step: its number, the kind of batch with its requests, free pages (p) and rows (r), who waits, whose prompt
is in chunks, and what was sent (`r0 +2`: two tokens). `|`: what the script did before that step; `epilogue`: what ends
each script.

Cause candidates in SGLang, innermost first:
    managers/scheduler.py:abort_request: self.chunked_req = None
"""

from sr_fuzz.script import Abort, EngineConfig, Pause, Prompt, Script, StartReq, Step, StepUntil
from sr_fuzz.testing.known_bug import assert_bug_is_gone

SIGNATURE = "kv_pages:leaked:radix+overlap:1a2b3c"

SCRIPT = Script(
    config=EngineConfig(chunked_prefill_size=8),
    actions=(
        StartReq(
            "r0",
            prompt=Prompt(family=1, length=40, unique_tail=3),
            max_new_tokens=4,
            ignore_eos=True,
            stop_token_ids=(7,),
        ),
        StepUntil("r0", "nth_chunk", nth=2),
        Pause(mode="in_place"),
        Abort("r0", await_arrival=False),
        Step(3),
    ),
)


def test_kv_pages_leaked_HASH(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert_bug_is_gone(outcome, SCRIPT, SIGNATURE)
'''


def test_the_repro_reads_like_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "program", lambda name: name)
    monkeypatch.setattr(commands, "installed_version", lambda: "0.5.23")
    path = emit(FINDING, tmp_path / "new" / "folder", trace=TRACE)
    stem, _, digest = path.stem.rpartition("_")
    assert (stem, len(digest)) == ("test_kv_pages_leaked", 6)
    assert path.read_text() == EXPECTED.replace("HASH", digest).replace("FOLDER", str(path.parent))


def test_a_known_cause_marks_it_as_an_expected_failure(tmp_path: Path):
    source = emit(FINDING, tmp_path, known_cause="sgl-project/sglang#1: pages of a\n  parked chunk").read_text()
    assert "\nimport pytest\n" in source
    reason = 'reason="sgl-project/sglang#1: pages of a parked chunk"'
    assert f"@pytest.mark.xfail(strict=True, raises=AssertionError, {reason})\ndef test" in source
    assert to_source(SCRIPT) in source


def test_only_the_bug_itself_is_an_expected_failure(tmp_path: Path):
    """In a pytest run the bug is an expected failure; another violation and an engine without the bug are failures."""
    path = emit(FINDING, tmp_path, known_cause="pages of a parked chunk")
    bug = Outcome("h", "0.5.23", violation=replace(FINDING.violation, location=()), wall_s=0.1)
    path.write_text(path.read_text().replace(FINDING.signature, signature(bug.violation, SCRIPT.config)))
    [test] = [value for name, value in runpy.run_path(str(path)).items() if name.startswith("test_")]
    assert test.pytestmark[0].kwargs["raises"] is AssertionError
    with pytest.raises(AssertionError):
        test(SimpleNamespace(run=lambda script: bug))
    other = replace(bug, violation=replace(bug.violation, invariant="streams", rule="reordered"))
    with pytest.raises(pytest.fail.Exception, match="its script shows something else, streams:reordered"):
        test(SimpleNamespace(run=lambda script: other))
    test(SimpleNamespace(run=lambda script: replace(bug, violation=None)))


def test_a_bug_of_some_releases_is_marked_with_them(tmp_path: Path):
    source = emit(FINDING, tmp_path, known_cause="pages of a parked chunk", releases="<0.5.22").read_text()
    assert '@pytest.mark.sglang_bug("<0.5.22", reason="pages of a parked chunk")\ndef test' in source


def test_what_only_a_server_shows_runs_on_one(tmp_path: Path):
    of_clients = replace(FINDING, violation=replace(FINDING.violation, invariant="http_answers"))
    of_ranks = replace(FINDING, script=Script(EngineConfig(pp_size=2), SCRIPT.actions))
    for finding in (of_clients, of_ranks):
        source = emit(finding, tmp_path).read_text()
        assert "(sr_server_engine):\n    outcome = sr_server_engine.run(SCRIPT)\n" in source


def test_the_same_finding_replaces_its_older_repro_and_another_does_not(tmp_path: Path):
    longer = msgspec.structs.replace(FINDING, script=Script(SCRIPT.config, (*SCRIPT.actions, Step(9))))
    other = msgspec.structs.replace(FINDING, signature="kv_pages:leaked:no-radix+overlap")
    first, second, third = (emit(finding, tmp_path) for finding in (longer, FINDING, other))
    assert first == second != third
    assert load(first).script == SCRIPT


HOSTILE = 'it says """done""" and C:\\new\\x41 and \x00\x1b[31m, and ends in \\'


def test_a_finding_that_is_found_again_keeps_the_mark_of_its_test(tmp_path: Path):
    first = emit(FINDING, tmp_path, known_cause="a cause", releases="<0.5.22")
    before = first.read_text()
    with pytest.raises(KeptBetter, match="not replaced: it is not worse"):
        emit(FINDING, tmp_path)
    assert emit(FINDING, tmp_path, replace="as good").read_text() == before
    assert "a cause" not in emit(FINDING, tmp_path, replace="any").read_text()



@pytest.mark.parametrize(
    "message",
    [HOSTILE, HOSTILE * 20, "x" * 1000, "\\" * 500, '"' * 500, "two\nlines", "", "é" * 300, "{braces} %s", "\\N{DASH}"],
)
def test_no_message_breaks_the_test_file(tmp_path: Path, message: str):
    violation = Violation("exception", message[:40] or "?", message, 3, location=(message, "b.py"), stack=message)
    trace = (StepRecord(1, (message,), batch=(message,) * 9, mode="decode"),)
    finding = msgspec.structs.replace(FINDING, violation=violation, signature=message or "?")
    path = emit(finding, tmp_path, known_cause=message, trace=trace)
    lines = [line for line in path.read_text().splitlines() if str(tmp_path) not in line]  # commands are not cut
    assert max(map(len, lines)) <= WIDTH
    assert (load(path).script, load(path).signature) == (SCRIPT, message or "?")
    assert load(path.with_suffix(".json")).finding == finding


ALL_ACTIONS = Script(
    EngineConfig(
        page_size=4, max_total_tokens=64, max_running_requests=3, chunked_prefill_size=8, schedule_policy="dfs-weight",
        schedule_conservativeness=0.03, enable_priority_scheduling=True, max_queued_requests=4,
    ),
    (
        StartReq("r0", Prompt(2, 30, 5), 0, True, (), -5, True, 3, 2, False),
        StartReq("r1", Prompt(), 4096, False, (1, 2, 63)), StartReq("r2"), Step(), StepUntil("r9", "retracted"),
        Pause("abort"), Continue(), AbortAll(False), FlushCache(), EvictRadix(), EvictRadix(8), ExhaustKv(),
        ExhaustKv(3), ExhaustLockRefs(1), ExhaustRows(2), Release(), AdvanceClock(2.5),
    ),
)  # fmt: skip


@pytest.mark.parametrize("script", [ALL_ACTIONS, SCRIPT, Script(EngineConfig(), ())], ids=["all", "some", "empty"])
def test_an_emitted_script_is_the_same_script(tmp_path: Path, script: Script):
    assert load(emit(msgspec.structs.replace(FINDING, script=script), tmp_path)).script == script


@settings(
    derandomize=True, max_examples=200, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(scripts(list(CONFIG_SETS["default"].values())))
def test_source_of_any_script_evaluates_to_it(script: Script):
    source = to_source(script)
    names = {kind.__name__: kind for kind in (EngineConfig, Prompt, Script, *map(type, script.actions))}
    assert eval(source, names) == script
    assert max(map(len, source.splitlines())) <= WIDTH
    ast.parse(source)


# -- reading back ----------------------------------------------------------------------------------------------


def test_a_finding_file_brings_back_the_finding_and_its_trace(tmp_path: Path):
    case = load(emit(FINDING, tmp_path, trace=TRACE).with_suffix(".json"))
    assert (case.finding, case.script, case.signature, case.trace) == (FINDING, SCRIPT, FINDING.signature, TRACE)


def _broken(tmp_path: Path, **changes: object) -> Path:
    path = emit(FINDING, tmp_path).with_suffix(".json")
    raw = msgspec.json.decode(path.read_bytes())
    for where, value in changes.items():
        target = raw
        *parents, last = where.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    path.write_bytes(msgspec.json.encode(raw))
    return path


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": 99}, "format: this version reads findings of format 1, got 99"),
        ({"finding": 3}, "finding: expected an object with the fields signature, script, violation"),
        ({"finding__colour": "red"}, "finding: unknown field `colour`"),
        ({"finding__tried": -1}, "finding.tried: expected a whole number from 0, got -1"),
        ({"finding__script__config__page_size": 0}, "finding.script: config.page_size"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_a_broken_finding_file_is_refused_with_its_reason(tmp_path: Path, changes: dict[str, object], complaint: str):
    path = _broken(tmp_path, **changes)
    with pytest.raises(ScriptError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and complaint in message and "\n" not in message


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("SCRIPT = (", "cannot be imported: SyntaxError"),
        ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
        ("SCRIPT = 3", "no SCRIPT in it"),
    ],
)
def test_a_python_file_that_is_no_repro_is_refused(tmp_path: Path, source: str, complaint: str):
    path = tmp_path / "test_x.py"
    path.write_text(source)
    with pytest.raises(ScriptError, match=complaint):
        load(path)
