"""A file that others have written or changed is what it should be, or one line of bounded length says why not.

Valid files are changed at random, in their values and in their text: 20,000 scripts, and a thousand of each other kind
of file. Nothing here needs an engine.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec.structs import replace

from sr_fuzz.bugs.catalogue import KnownError, read_bug, shipped
from sr_fuzz.bugs.known import known_signatures
from sr_fuzz.campaign.sensitivity import Report, Search, load_report
from sr_fuzz.emit.pytest_repro import emit, to_source
from sr_fuzz.outcome import Finding
from sr_fuzz.outcome.files import load, save_finding
from sr_fuzz.script import Action, EngineConfig, Script, ScriptError, StartReq, from_json, to_json, validate
from sr_fuzz.script.defaults import defaults_of
from sr_fuzz.script.text import text

LONGEST = 1000
"""Most characters of an error after the name of the file; the longest ones list the fields or the kinds of action."""

BUGS = list(shipped().values())

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 65, 4097, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, -(10**4000),
    0.0, -0.0, 0.5, 1e-9, 1e308, float("nan"), float("inf"), -float("inf"),
    "", "x", "r0", "R" * 17, "r0\n", "\ud800", "a\udfffb", "\x00", "\x1b[31m", "é", "\U0001f600", "`",
    " - at `$.actions[0]", "x" * 50_000, "\\ud800", "l9", "prefill", "start_req", "NaN", "null",
    [], [[]], [None], [1] * 600, {}, {"": 1}, {"id": 3}, {"action": None}, {"length": "8"}, {"id": "r0", "rid": {}},
]  # fmt: skip

NAMES = [
    "", "action", "name", "n", "config", "actions", "format", "prompt", "session", "seconds", "page_size", "finding",
    "bug_format", "signature", "x", "é", "\ud800", "x - at `$.config", "`", "a b", "$", "[0]", "k" * 50_000, "\n",
    "__class__",
]  # fmt: skip

TEXTS = [
    '"', "{", "}", "[", "]", ",", ":", "0", "9" * 5000, "-", "e", "1e999",
    "\\", "\\ud800", "null", "NaN", "\x00", "\ufeff",
]  # fmt: skip


def changed_values(raw: Any, chance: random.Random) -> Any:
    """A copy of plain values, in which one place or a few are different."""
    raw = copy.deepcopy(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        raw = _change(raw, chance)
    return raw


def any_value(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(VALUES))  # it may be changed in its turn


def _change(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or chance.random() < 0.05:
        near = type(value) is int and chance.random() < 0.7
        return value + chance.choice((-1, 1, 8)) if near else any_value(chance)
    if isinstance(value, dict):
        name = chance.choice(list(value))
        how = chance.random()
        if how < 0.1:
            del value[name]
        elif how < 0.2:
            value[chance.choice(NAMES)] = any_value(chance)
        elif how < 0.25:
            value[chance.choice(NAMES)] = value.pop(name)
        else:
            value[name] = _change(value[name], chance)
        return value
    at = chance.randrange(len(value))
    how = chance.random()
    if how < 0.1:
        del value[at]
    elif how < 0.2:
        value.insert(at, copy.deepcopy(value[chance.randrange(len(value))]))
    else:
        value[at] = _change(value[at], chance)
    return value


def changed_text(data: str, chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 2, 5))):
        at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        how = chance.random()
        if how < 0.3:
            data = data[:at] + data[min(end, at + 20) :]
        elif how < 0.5:
            data = data[:at] + data[at : at + 200] + data[at:]
        else:
            data = data[:at] + chance.choice(TEXTS) + data[at:]
    return data


def mutations(raw: Any, count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for number in range(count):
        if number % 4:
            # Surrogates are written as escapes, and numbers of any length by Python.
            yield json.dumps(changed_values(raw, chance)).encode()
        else:
            yield changed_text(json.dumps(raw), chance).encode("utf-8", "surrogatepass")


def is_one_short_line(error: Exception, source: object) -> bool:
    said = str(error)
    return said.startswith(str(source)) and said.isprintable() and len(said) <= len(str(source)) + LONGEST


def test_a_changed_script_is_valid_or_refused_in_one_line():
    valid = refused = 0
    for number, bug in enumerate(BUGS):
        raw = msgspec.json.decode(to_json(bug.script))
        for data in mutations(raw, 20_000 // len(BUGS) + 1, seed=number):
            try:
                script = from_json(data, source="a.json")
            except ScriptError as error:
                assert is_one_short_line(error, "a.json: "), data
                refused += 1
            else:
                assert from_json(to_json(script)) == script
                assert text(script).isprintable() and to_source(script)
                valid += 1
    assert valid + refused >= 20_000
    assert min(valid, refused) > 1000  # of both kinds enough to say something


NO_DATA: list[Any] = [b"x", {1}, object(), (1,), {1: 2}, {(1, 2): 3}, type("K" * 50_000, (), {})(), StartReq, 1j]


def test_a_script_that_was_built_of_anything_is_refused_in_one_line():
    values = [*VALUES, *NO_DATA]
    fields = [(name, value) for name in EngineConfig.__struct_fields__ for value in values]
    built = [Script(replace(EngineConfig(), **{name: value}), ()) for name, value in fields]
    for kind in get_args(Action):
        some = {name: "r0" for name in kind.__struct_fields__ if name not in defaults_of(kind)}
        built += [
            Script(EngineConfig(), (kind(**{**some, name: value}),))
            for name in kind.__struct_fields__
            for value in values
        ]
    built += [Script(*parts) for value in values for parts in ((value, ()), (EngineConfig(), value))]
    refused = 0
    for script in built:
        try:
            validate(script)
        except ScriptError as error:
            assert is_one_short_line(error, "script: "), script
            refused += 1
    assert len(built) > 4000 and refused > len(built) / 2


def finding_file(folder: Path) -> Path:
    bug = next(bug for bug in BUGS if bug.violation is not None and bug.trace)
    finding = Finding(
        bug.signature, bug.script, bug.violation, "0.5.23", 5, 5, original_actions=9, reruns=3, faults=("a:b",),
        sglang_tree="/a/tree",
    )  # fmt: skip
    save_finding(finding, folder / "whole.json", bug.trace)
    return folder / "whole.json"


def bug_file(folder: Path) -> Path:
    whole = folder / "whole.json"
    bug = next(bug for bug in BUGS if bug.trace and bug.fixes)
    whole.write_bytes(msgspec.json.encode(replace(bug, faces={"<0.5.20": "a:b"}, releases="<0.5.23")))
    return whole


def report_file(folder: Path) -> Path:
    searches = [Search("lost", "a class", ("kv_pages",), scripts=60), Search("found", detected_by="a:b", search_s=1.5)]
    Report("0.5.23", 1, 60, searches, median_s=1.5).save(folder / "whole.json")
    return folder / "whole.json"


def load_and_write_again(path: Path) -> None:
    case = load(path)
    if case.finding is not None:
        emit(case.finding, path.parent / "emitted", trace=case.trace)
        compile(next((path.parent / "emitted").glob("*.py")).read_bytes(), "emitted", "exec")
        for written in (path.parent / "emitted").iterdir():
            written.unlink()


def read_bug_and_write_again(path: Path) -> None:
    bug = read_bug(path)
    for version in ("0.5.16", "0.5.23", "unknown"):
        bug.is_open_in(version), bug.shown_in(version)
    assert msgspec.json.encode(bug)


def load_report_and_write_again(path: Path) -> None:
    load_report(path).save(path)


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (finding_file, load_and_write_again),
        (bug_file, load_and_write_again),
        (bug_file, read_bug_and_write_again),
        (report_file, load_report_and_write_again),
    ],
)
def test_a_changed_file_of_another_kind_is_valid_or_refused_in_one_line(
    make: Callable[[Path], Path], read: Callable[[Path], None], tmp_path: Path
):
    whole = make(tmp_path)
    read(whole)
    raw = json.loads(whole.read_bytes())
    path = tmp_path / "changed.json"
    refused = 0
    for data in mutations(raw, 1000, seed=7):
        path.write_bytes(data)
        try:
            read(path)
        except (ScriptError, KnownError, ValueError) as error:
            assert type(error) in (ScriptError, KnownError, ValueError), data
            assert is_one_short_line(error, path), data
            refused += 1
    assert 200 < refused < 1000


def test_a_changed_test_among_the_known_ones_is_read_or_refused_in_one_line(tmp_path: Path):
    finding = load(finding_file(tmp_path)).finding
    assert finding is not None
    folder = tmp_path / "known"
    path = emit(finding, folder, known_cause="a cause", releases="<0.5.23")
    source, chance, refused = path.read_text(), random.Random(3), 0
    for _ in range(500):
        path.write_bytes(changed_text(source, chance).encode("utf-8", "surrogatepass"))
        try:
            known_signatures(folder, "0.5.20")
        except KnownError as error:
            assert is_one_short_line(error, path)
            refused += 1
    assert 50 < refused < 500
