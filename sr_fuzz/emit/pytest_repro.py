"""The repro writer: it writes a finding as an ordinary pytest test that a user can read, run and commit.

A repro is one file: a description of the violation; ``SIGNATURE``, by which later runs recognise it; ``SCRIPT``, as
Python source; and a test that plays it. The finding is written beside it as JSON, for ``sr-fuzz replay``, ``minimise``
and ``emit``. Only fields that differ from their default are written, so that the reader sees what matters.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace as replaced

from sr_fuzz.emit.commands import needs_comparison, needs_server
from sr_fuzz.emit.explanation import (
    TRACE_LEGEND,
    Command,
    how_to_run,
    raised_at,
    relatives,
    script_legend,
    where_to_look,
)
from sr_fuzz.emit.python_text import in_docstring, literal, quoted
from sr_fuzz.emit.replacing import Replace, check_replaceable, digest, digest_of
from sr_fuzz.lifetime import locks
from sr_fuzz.outcome import Finding, StepRecord
from sr_fuzz.outcome.files import EmittedTest, finding_data, finding_file, load, repro_beside
from sr_fuzz.outcome.plain_text import storable
from sr_fuzz.outcome.writing import write_together, write_whole
from sr_fuzz.script import Script
from sr_fuzz.script.defaults import defaults_of
from sr_fuzz.script.text import text

WIDTH = 120
"""Line width in columns, as in the rest of the project."""

TRACE_STEPS = 8
"""Number of steps of the trace in a repro, which shows what led to the violation; `replay` shows more."""


def emit(
    finding: Finding,
    folder: Path,
    *,
    known_cause: str | None = None,
    releases: str | None = None,
    trace: Sequence[StepRecord] = (),
    suffix: str = "",
    suspect: bool = False,
    replace: Replace = "better",
) -> Path:
    """Write ``finding`` into ``folder`` as ``test_<invariant>_<rule>_<hash><suffix>.py``, and beside it as ``.json``.

    The hash is that of the signature, so a finding that is emitted again replaces its older repro, as far as
    ``replace`` allows: only if it is *better* than that one, if it is at least *as good*, or in *any* case. An edited
    test is replaced by *any* alone; otherwise `NotReplaced` is raised (`sr_fuzz.emit.replacing`).
    ``known_cause`` marks the test as a strict ``xfail``, which fails once the bug is fixed; without one that of the
    replaced test stays. ``releases``, a version specifier, limits this mark to these releases of SGLang; on any other
    release the test must pass. ``trace`` is that of the run that showed the violation. ``suspect``: whether it is a
    finding behind a known signature. Creates ``folder``; returns the path of the test. Raises `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = repro_path(finding, folder, suffix)
    file = finding_file(path)
    with locks.held_folder(folder):  # what is looked at is what is replaced
        before = check_replaceable(path, finding, as_good=replace == "as good") if replace != "any" else None
        if before is not None and known_cause is None:
            known_cause, releases = before.known_cause, before.releases
        module = _module(finding, path, tuple(trace), known_cause, releases).encode()
        test = EmittedTest(digest(module), storable(known_cause) if known_cause else None, releases)

        def data(written: EmittedTest) -> bytes:
            return finding_data(finding, tuple(trace)[-TRACE_STEPS:], written, suspect=suspect)

        # The finding comes first: from it alone the test can be made again.
        pending = replaced(test, complete=False, replaces=digest_of(path))
        write_together({file: data(pending), path: module})
        write_whole(file, data(test))
    return path


def complete(file: Path) -> None:
    """Write the test of a finding file if a campaign was killed before it had written both.

    A test that is there, edited since or not, and one that a person has removed, stay so. Raises `ScriptError`,
    `OSError`.
    """
    case, path = load(file), repro_beside(file)
    if case.finding is None or case.test is None or case.test.complete:
        return
    done = replaced(case.test, complete=True, replaces=None)
    there = digest_of(path)
    if there is None or there == case.test.replaces:
        module = _module(case.finding, path, case.trace, case.test.known_cause, case.test.releases).encode()
        write_whole(path, module)
        done = replaced(done, sha256=digest(module))
    write_whole(file, finding_data(case.finding, case.trace, done, suspect=case.suspect))


def repro_path(finding: Finding, folder: Path, suffix: str = "") -> Path:
    """Return where `emit` writes it."""
    return folder / f"test_{stem(finding)}{suffix}.py"


def stem(finding: Finding) -> str:
    """Return ``<invariant>_<rule>_<hash of the signature>``, for the names of the finding's files."""
    digest = hashlib.sha256(finding.signature.encode()).hexdigest()[:6]
    words = f"{finding.violation.invariant}_{finding.violation.rule}"
    return f"{re.sub(r'[^a-z0-9]+', '_', words.lower()).strip('_')[:60]}_{digest}"


def _module(
    finding: Finding, test: Path, trace: Sequence[StepRecord], known_cause: str | None, releases: str | None
) -> str:
    parts = [_docstring(finding, test, trace, known=known_cause is not None), ""]
    if known_cause is not None:
        parts += ["import pytest", ""]
    if needs_comparison(finding):
        parts.append("from sr_fuzz.engine.around.differential import DifferentialEngine")
    parts.append(_imports(finding.script))
    parts += ["from sr_fuzz.testing.known_bug import assert_bug_is_gone", ""]
    parts += [_assignment("SIGNATURE", finding.signature), ""]
    if known_cause is not None:
        parts += ["# Its other signatures; `*` in one matches any text.", "ALSO_SEEN_AS = ()", ""]
    parts += [f"SCRIPT = {to_source(finding.script)}", "", ""]
    if known_cause is not None:
        parts.append(_mark(known_cause, releases))
    engine = "sr_server_engine" if needs_server(finding) else "sr_engine"
    parts += [
        f"def test_{stem(finding)}({engine}):",
        f"    outcome = {f'DifferentialEngine({engine})' if needs_comparison(finding) else engine}.run(SCRIPT)",
        f"    assert_bug_is_gone(outcome, SCRIPT, SIGNATURE{'' if known_cause is None else ', *ALSO_SEEN_AS'})",
        "",
    ]
    return "\n".join(parts)


# -- words -----------------------------------------------------------------------------------------------------

_WHEN = {"step": "after step {}", "settled": "once the engine had settled, at step {}", "end": "at the end, at step {}"}


def _docstring(finding: Finding, test: Path, trace: Sequence[StepRecord], *, known: bool) -> str:
    """``known``: whether the cause is known, so that no candidates for it are named."""
    violation = finding.violation
    lines = [f"{violation.invariant}: {violation.rule}, {_WHEN[violation.when].format(violation.step)}.", ""]
    lines += [*_wrap(violation.message), ""]
    lines += [*_wrap(f"Found on SGLang {finding.sglang_version}; {_reliability(finding)}.")]
    if finding.reruns:
        shrunk = f"Minimised from {finding.original_actions} actions to {len(finding.script.actions)}"
        lines += [f"{shrunk} in {finding.reruns} runs."]
    if finding.faults:
        lines += _wrap(f"Seeded faults that were on: {', '.join(finding.faults)}.")
    lines += ["", *_wrapped(how_to_run(finding, test))]
    lines += ["", "Script:", *_script_lines(finding.script), *_wrapped(script_legend(finding.script))]
    if shown := trace[-TRACE_STEPS:]:
        lines += ["", "Last steps:"]
        lines += [f"    {line}" for record in shown for line in record.line.splitlines()]
        lines += _wrap(TRACE_LEGEND)
    if not known:
        for section in (where_to_look(finding, trace), relatives(finding, test)):
            lines += ["", *_wrapped(section)] if section else []
    elif violation.location:
        lines += ["", "In SGLang, innermost first:", *(f"    {place}" for place in raised_at(finding))]
    body = "\n".join(_shown(line) for line in lines)
    return f'"""{body}\n"""'


def _wrapped(lines: Sequence[str]) -> list[str]:
    """Return the lines of a section; one that is too long goes on in the next line, with the same indent."""
    result: list[str] = []
    for line in lines:
        if isinstance(line, Command):
            result.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        result += textwrap.wrap(line, WIDTH, subsequent_indent=indent, drop_whitespace=True) or [""]
    return result


def _reliability(finding: Finding) -> str:
    return f"shown by {finding.reliability}" if finding.tried else "not run again since"


def _script_lines(script: Script) -> list[str]:
    """Return the one-line form of the script, with line breaks between actions, and in an action that is too long."""
    room = WIDTH - 8
    lines = [""]
    for part in re.split(r"(?<=; )", text(script)):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        *whole, rest = textwrap.wrap(part, room, drop_whitespace=False) if len(part) > room else [part]
        lines[-1:] = [*whole, rest] if whole else [lines[-1] + rest]
    return [f"    {line}" for line in lines]


def _wrap(words: str) -> list[str]:
    return [part for line in words.splitlines() for part in textwrap.wrap(line, WIDTH) or [""]]


def _shown(line: str) -> str:
    return in_docstring(line) if isinstance(line, Command) else in_docstring(line.rstrip(), WIDTH)


# -- source ----------------------------------------------------------------------------------------------------


def to_source(script: Script) -> str:
    """Return ``script`` as Python source: one action per line, at most `WIDTH` columns, without default fields."""
    config = _source(script.config, indent=4, before=len("config="), after=1)
    actions = [f"        {_source(action, indent=8, before=0, after=1)}," for action in script.actions]
    body = "\n".join(["(", *actions, "    )"]) if actions else "()"
    return f"Script(\n    config={config},\n    actions={body},\n)"


def _source(value: Any, *, indent: int, before: int, after: int) -> str:
    """Return ``value`` on one line if it fits with ``before`` and ``after`` other columns, else one part per line."""
    flat = _flat(value)
    if indent + before + len(flat) + after <= WIDTH or not isinstance(value, msgspec.Struct | tuple):
        return flat
    space = " " * (indent + 4)
    parts = _arguments(value) if isinstance(value, msgspec.Struct) else [("", item) for item in value]
    lines = [f"{space}{key}{_source(item, indent=indent + 4, before=len(key), after=1)}," for key, item in parts]
    name = type(value).__name__ if isinstance(value, msgspec.Struct) else ""
    return "\n".join([f"{name}(", *lines, f"{' ' * indent})"])


def _flat(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}({', '.join(key + _flat(item) for key, item in _arguments(value))})"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
    return quoted(value) if isinstance(value, str) else repr(value)


def _arguments(struct: msgspec.Struct) -> list[tuple[str, Any]]:
    """Return pairs ``(keyword=, value)``. Fields without a default, and a step's ``n``, are positional."""
    defaults = defaults_of(struct)
    result: list[tuple[str, Any]] = []
    for index, field in enumerate(struct.__struct_fields__):
        value = getattr(struct, field)
        if field not in defaults:
            result.append(("", value))
        elif value != defaults[field]:
            result.append(("" if field == "n" and index == 0 else f"{field}=", value))
    return result


def _imports(script: Script) -> str:
    used = {"EngineConfig", "Script", *(type(action).__name__ for action in script.actions)}
    source = to_source(script)
    used |= {name for name in ("Prompt", "SessionParams") if f"{name}(" in source}
    names = sorted(used)
    line = f"from sr_fuzz.script import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join(["from sr_fuzz.script import (", *(f"    {name}," for name in names), ")"])


def _assignment(name: str, value: str) -> str:
    """Return ``name = "value"``, in parentheses where it does not fit on one line."""
    line = f"{name} = {quoted(value)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name} = (", *(f"    {part}" for part in literal(value, WIDTH - 4)), ")"])


def _mark(cause: str, releases: str | None) -> str:
    """Return the decorator that marks the test of an open bug."""
    cause = " ".join(cause.split())
    # The mark is limited to AssertionError: an engine that does not start does not show the bug.
    always = ("xfail", "strict=True, raises=AssertionError")
    name, first = always if releases is None else ("sglang_bug", quoted(releases))
    arguments = f"{first}, reason={quoted(cause)}"
    line = f"@pytest.mark.{name}({arguments})"
    if len(line) <= WIDTH:
        return line
    if len(arguments) <= WIDTH - 4:
        return f"@pytest.mark.{name}(\n    {arguments}\n)"
    parts = literal(cause, WIDTH - len("    reason=,"))
    return "\n".join([f"@pytest.mark.{name}(", f"    {first},", "    reason=" + "\n    ".join(parts) + ",", ")"])
