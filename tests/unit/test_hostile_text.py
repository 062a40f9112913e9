"""Whatever messages, reasons and paths hold: what is emitted compiles, says it exactly, and runs none of it."""

from __future__ import annotations

import ast
import io
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from sr_fuzz.bugs.catalogue import KnownError, read_bug
from sr_fuzz.bugs.known import fixes, known_signatures
from sr_fuzz.campaign.events import FindingNew
from sr_fuzz.emit.issue import issue_text
from sr_fuzz.emit.known_bug import emit_bug
from sr_fuzz.emit.pytest_repro import WIDTH, emit
from sr_fuzz.emit.sglang_repro import TRACE_WIDTH, emit_sglang
from sr_fuzz.outcome import Finding, Outcome, StepRecord, Violation
from sr_fuzz.outcome.files import load
from sr_fuzz.report.terminal import Terminal
from sr_fuzz.script import Abort, EngineConfig, Prompt, Script, ScriptError, StartReq, Step

SCRIPT = Script(EngineConfig(), (StartReq("r0", Prompt(1, 8), 4), Step(3), Abort("r0")))

PIECES = (
    "'", '"', '""', '"""', "'''", "\\", "\\x4", "\\u12", "\\N{", "\\\n", "\n", "\r", "\t", "\f", "\v", "\x00", "\x7f",
    "\x1b[31m", "\x1b]0;title\x07", "\x85", "\u2028", "\u202e", "\ufeff", "\ud800", "\udfff", "é", "日本", "\U0001f600",
    "{x}", "%s", "[bold]", "#", ";", " ", "  ", "word ", "a" * 40, '""";import os;os.abort()\n"""', "assert False",
)  # fmt: skip

texts = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=40).map("".join)
words = texts.filter(lambda text: text.strip() != "")
"""A reason is not blank: the command line refuses one."""


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    """Each holds about ten hostile strings; the violation is one that SGLang's own runtime can show."""
    invariant, rule = draw(st.sampled_from([("kv_pages", "leaked"), ("exception", "RuntimeError")]))
    location = tuple(draw(st.lists(texts, max_size=3)))
    violation = Violation(invariant, rule, draw(texts), 3, "end", location, draw(texts))
    tree = draw(st.none() | texts)
    return Finding(
        draw(texts), SCRIPT, violation, draw(texts), 1, 1, faults=tuple(draw(st.lists(texts, max_size=2))),
        sglang_tree=tree,
    )  # fmt: skip


TRACE = (StepRecord(1, ('it says """done""" \x1b[31m and \\x4',), batch=("r0",), mode="decode"),)

# 300 examples are some 3,000 strings; the same ones each time, so that a failure is caused by a change.
many = settings(
    derandomize=True, max_examples=300, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def shape(source: str) -> list[str]:
    """The statements of a file, without what they say."""
    tree = ast.parse(source)
    compile(tree, "emitted", "exec")
    functions = [f"{type(node).__name__} {ast.dump(node)}" for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [type(node).__name__ for node in tree.body] + [one.partition("decorator_list")[0] for one in functions]


def value_of(source: str, name: str) -> object:
    [node] = [n for n in ast.parse(source).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name]
    return ast.literal_eval(node.value)


def reason_of(source: str) -> str:
    """What the mark of the test gives as its reason."""
    [test] = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    [mark] = [one for one in test.decorator_list if isinstance(one, ast.Call)]
    return next(ast.literal_eval(keyword.value) for keyword in mark.keywords if keyword.arg == "reason")


def harmless(source: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in source)


@many
@given(findings(), words)
def test_an_emitted_test_says_it_exactly_and_runs_none_of_it(tmp_path_factory, finding: Finding, cause: str):
    folder = tmp_path_factory.mktemp("hostile")
    plain = emit(Finding("s", SCRIPT, Violation("kv_pages", "leaked", "m", 3), "0"), folder / "plain", known_cause="c")
    path = emit(finding, folder, known_cause=cause, trace=TRACE)
    source = path.read_text()
    same = [line.replace(plain.stem, path.stem) for line in shape(plain.read_text())]
    assert shape(source)[:8] == same[:8] and harmless(source)
    assert value_of(source, "SIGNATURE") == finding.signature
    assert reason_of(source) == " ".join(cause.split())
    assert load(path).signature == finding.signature and load(path).script == SCRIPT
    assert load(path.with_suffix(".json")).finding == finding
    assert list(known_signatures(folder).pairs()) == [(finding.signature, (path, " ".join(cause.split())))]


@many
@given(findings(), words)
def test_a_test_for_sglang_runs_none_of_it(tmp_path_factory, finding: Finding, cause: str):
    folder = tmp_path_factory.mktemp("hostile")
    plain = msgspec.structs.replace(
        finding, signature="s", sglang_version="0", violation=msgspec.structs.replace(finding.violation, message="m")
    )
    source = emit_sglang(finding, folder, known_cause=cause, trace=TRACE).read_text()
    assert shape(source) == shape(emit_sglang(plain, folder, known_cause="c").read_text()) and harmless(source)
    assert max(map(len, source.splitlines())) <= TRACE_WIDTH <= WIDTH


@many
@given(findings(), words)
def test_a_known_bug_is_read_back(tmp_path_factory, finding: Finding, cause: str):
    finding = msgspec.structs.replace(finding, faults=())
    bug = read_bug(emit_bug(finding, tmp_path_factory.mktemp("hostile"), cause=cause))
    assert (bug.signature, bug.violation) == (finding.signature, finding.violation)
    assert bug.reason.encode() and (bug.reason == cause or not _is_utf8(cause))


def _is_utf8(text: str) -> bool:
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False


@many
@given(findings(), st.none() | words, st.none() | texts)
def test_a_text_for_an_issue_is_whole_whatever_it_quotes(finding: Finding, cause: str | None, test: str | None):
    told = issue_text(finding, TRACE, cause=cause, test=test)
    assert all(c.isprintable() or c in "\n\t" for c in told) and told.encode()
    fences = [line for line in told.splitlines() if line.startswith("```")]
    heads = {"### Describe the bug", "### Reproduction", "### Environment"}
    assert len(fences) % 2 == 0 and heads <= set(told.splitlines())


@many
@given(findings(), st.lists(texts, max_size=3))
def test_no_terminal_obeys_what_a_report_quotes(finding: Finding, log: list[str]):
    shown = Outcome("h", "0.5.23", finding.violation, trace=TRACE, log=tuple(log)).report()
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    shown.encode()
    stream = io.StringIO()
    new = FindingNew(finding.signature, finding.violation, "default", 3)
    Terminal(Console(file=stream, width=120))(new)
    assert all(c.isprintable() or c in "\n\t" for c in stream.getvalue())


def test_no_file_is_executed_but_a_python_file_that_a_person_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tests in a folder of known ones are read as source; a finding's faults are names and are not imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\n"
    (tmp_path / "evil.py").write_text(code)
    path = emit(
        Finding("s", SCRIPT, Violation("kv_pages", "leaked", "m", 3), "0", faults=("evil:fault",)), tmp_path,
        known_cause="c",
    )  # fmt: skip
    path.write_text(f"{path.read_text()}\nFIXED_BY = ('evil:fix',)\n{code}")
    assert known_signatures(tmp_path) and fixes(tmp_path) == {path: ("evil:fix",)}
    assert load(path.with_suffix(".json")).finding is not None
    for name, content in (("a.json", code), ("b.txt", code), ("c", f"#!/usr/bin/env python\n{code}")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ScriptError):
            load(tmp_path / name)
        with pytest.raises(KnownError):
            read_bug(tmp_path / name)
    assert not ran.exists() and os.listdir(tmp_path)
    load(path)
    assert ran.exists()
