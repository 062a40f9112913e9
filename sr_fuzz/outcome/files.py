"""Scripts and findings as files.

The command line accepts four kinds of file, and `load` reads all of them: a script (JSON), a finding (JSON, saved
beside its repro), a known bug (JSON, see `sr_fuzz.bugs`), and the repro itself (the emitted Python test).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from sr_fuzz.outcome import old_addresses
from sr_fuzz.outcome.finding import Finding
from sr_fuzz.outcome.identity import renewed
from sr_fuzz.outcome.trace import StepRecord
from sr_fuzz.outcome.violation import Violation
from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script import Script, ScriptError, from_json, validate

BUG_FORMAT = 1
"""Format version of the files of known bugs; raised whenever an old file would be read with another meaning."""

FINDING_FORMAT = 1
"""Format version of finding files; raised whenever an old file would be read with another meaning."""


class EmittedTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The test that was written beside a finding file."""

    sha256: str
    """Of the test as it was written. A test with another one was edited since, and belongs to who edited it."""
    known_cause: str | None = None
    releases: str | None = None


class Case(msgspec.Struct, frozen=True):
    """The content of a file: a script, and for a finding or a repro the violation that it is known to show."""

    path: Path
    script: Script
    signature: str | None = None
    finding: Finding | None = None
    trace: tuple[StepRecord, ...] = ()
    """The last steps of the run that showed the finding."""
    test: EmittedTest | None = None
    """Of a finding file: the test that was written beside it."""


class _FindingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    finding: Finding
    trace: tuple[StepRecord, ...] = ()
    test: EmittedTest | None = None


def finding_data(finding: Finding, trace: Sequence[StepRecord] = (), test: EmittedTest | None = None) -> bytes:
    """Return ``finding`` and the steps before its violation as indented JSON."""
    data = msgspec.json.encode(_FindingFile(FINDING_FORMAT, finding, tuple(trace), test))
    return msgspec.json.format(data, indent=2) + b"\n"


def save_finding(finding: Finding, path: Path, trace: Sequence[StepRecord] = ()) -> None:
    """Write ``finding`` into a finding file of its own. Raises `OSError`."""
    write_whole(path, finding_data(finding, trace))


def load(path: Path) -> Case:
    """Read a script, a finding or a repro. Raises `ScriptError`, one line that names the file and the problem.

    A ``.py`` file is *executed*, as pytest does: pass only repros that you trust.
    """
    data = _read(path)
    if path.suffix == ".py":
        return _load_repro(path)
    raw = read_json(data)  # if it is not JSON, `from_json` reports the error
    if isinstance(raw, dict) and "finding" in raw:
        return _load_finding(path, raw)
    if isinstance(raw, dict) and "bug_format" in raw:
        return _load_bug(path, raw)
    return Case(path, from_json(data, source=str(path)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise ScriptError(f"{path}: a directory; expected a script, a finding or an emitted test") from None
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror or error}") from None


def _load_finding(path: Path, raw: dict[str, Any]) -> Case:
    if raw.get("format") != FINDING_FORMAT:
        found = raw.get("format", "none")
        raise ScriptError(f"{path}: format: this version reads findings of format {FINDING_FORMAT}, got {found!r}")
    body = raw["finding"]
    if not isinstance(body, dict):
        raise ScriptError(f"{path}: finding: expected an object, got {type(body).__name__}")
    unknown = sorted(set(body) - set(Finding.__struct_fields__))
    if unknown:
        raise ScriptError(f"{path}: finding: unknown field `{unknown[0]}`")
    # The script is decoded first, because `from_json` explains an error far better than the general decoder.
    script = from_json(msgspec.json.encode(body.get("script")), source=f"{path}: finding.script")
    try:
        file = msgspec.convert(raw, _FindingFile)
    except msgspec.ValidationError as error:
        raise ScriptError(f"{path}: {error}") from None
    found = replace(file.finding, signature=renewed(file.finding.signature, file.finding.violation))
    return Case(path, script, found.signature, found, file.trace, file.test)


def _load_bug(path: Path, raw: dict[str, Any]) -> Case:
    if raw["bug_format"] != BUG_FORMAT:
        raise ScriptError(f"{path}: bug_format: this version reads {BUG_FORMAT}, got {raw['bug_format']!r}")
    script = from_json(msgspec.json.encode(raw.get("script")), source=f"{path}: script")
    signature = raw.get("signature")
    if not isinstance(signature, str):
        raise ScriptError(f"{path}: signature: expected a string, got {type(signature).__name__}")
    return Case(path, script, signature)


def violation_beside(repro: Path) -> Violation | None:
    """Return the violation in the finding file of an emitted test; None where there is no valid one."""
    finding = finding_beside(repro)
    return finding.violation if finding is not None else None


def finding_beside(repro: Path) -> Finding | None:
    """Return the finding in the file beside an emitted test; None where there is none. Raises `ScriptError`."""
    path = repro.with_suffix(".json")
    raw = read_json(_read(path)) if path.is_file() else {}
    if raw is None:
        raise ScriptError(f"{path}: not JSON; it should be the finding of {repro.name}")
    return _load_finding(path, raw).finding if isinstance(raw, dict) and "finding" in raw else None


def read_json(data: bytes) -> Any:
    """Decode JSON in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; None where the data is not JSON."""
    try:
        return msgspec.json.decode(data.decode(json.detect_encoding(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _load_repro(path: Path) -> Case:
    spec = importlib.util.spec_from_file_location(f"_sr_fuzz_repro_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    old_addresses.install()
    keep_clean, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        first_line = str(error).partition("\n")[0]
        raise ScriptError(f"{path}: cannot be imported: {type(error).__name__}: {first_line}") from None
    finally:
        sys.dont_write_bytecode = keep_clean
    script, promised = getattr(module, "SCRIPT", None), getattr(module, "SIGNATURE", None)
    if not isinstance(script, Script):
        raise ScriptError(f"{path}: no SCRIPT in it; expected a test that sr-fuzz emitted")
    if not isinstance(promised, str | None):
        raise ScriptError(f"{path}: SIGNATURE: expected a string, got {type(promised).__name__}")
    if promised is not None:
        promised = renewed(promised, violation_beside(path))
    return Case(path, validate(script, source=str(path)), promised)
