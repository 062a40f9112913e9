"""Scripts and findings as files.

The command line accepts four kinds of file, and `load` reads all of them: a script (JSON), a finding (JSON, saved
beside its repro), a known bug (JSON, see `sr_fuzz.bugs`), and the repro itself (the emitted Python test).
"""

from __future__ import annotations

import importlib.util
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
from sr_fuzz.script import Script, ScriptError, validate
from sr_fuzz.script.explain import short
from sr_fuzz.script.reading import converted, parsed, refuse_unwritable
from sr_fuzz.script.validation import checked
from sr_fuzz.script.wording import reason, shortened

BUG_FORMAT = 1
"""Format version of the files of known bugs; raised whenever an old file would be read with another meaning."""

FINDING_FORMAT = 1
"""Format version of finding files; raised whenever an old file would be read with another meaning."""

_MAX_BYTES = 16 * 2**20
"""A longer file is not read: a finding with a long trace has some hundred KB, and a device such as /dev/zero no end."""

_PATH_SHOWN = 500
"""Most characters of a file's path that an error repeats."""


class EmittedTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The test that was written beside a finding file."""

    sha256: str
    """Of the test as it was written. A test with another one was edited since, and belongs to who edited it."""
    known_cause: str | None = None
    releases: str | None = None
    complete: bool = True
    """False while it is being written, and after a kill in that moment."""
    replaces: str | None = None
    """While it is being written: the checksum of the test that it is to replace."""


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
    suspect: bool = False
    """Whether the finding is one behind a known signature."""


class _FindingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    finding: Finding
    trace: tuple[StepRecord, ...] = ()
    test: EmittedTest | None = None
    suspect: bool = False


def finding_data(
    finding: Finding, trace: Sequence[StepRecord] = (), test: EmittedTest | None = None, *, suspect: bool = False
) -> bytes:
    """Return ``finding`` and the steps before its violation as indented JSON."""
    data = msgspec.json.encode(_FindingFile(FINDING_FORMAT, finding, tuple(trace), test, suspect))
    return msgspec.json.format(data, indent=2) + b"\n"


def save_finding(finding: Finding, path: Path, trace: Sequence[StepRecord] = (), *, suspect: bool = False) -> None:
    """Write ``finding`` into a finding file of its own. Raises `OSError`."""
    write_whole(path, finding_data(finding, trace, suspect=suspect))


def load(path: Path) -> Case:
    """Read a script, a finding or a repro. Raises `ScriptError`, one line that names the file and the problem.

    A ``.py`` file is *executed*, as pytest does: pass only repros that you trust.
    """
    if path.suffix == ".py":
        _read(path)  # so that one that cannot be read is reported like any other file
        return _load_repro(path)
    raw = parsed(_read(path), named(path))
    if isinstance(raw, dict) and "finding" in raw:
        return _load_finding(path, raw)
    if isinstance(raw, dict) and "bug_format" in raw:
        return _load_bug(path, raw)
    return Case(path, checked(raw, named(path)))


FINDING_NAME = "finding.json"
"""The finding file of a test that has a folder of its own: ``<name>/test_<name>.py``."""


def finding_file(test: Path) -> Path:
    """Return where the finding of an emitted test is: beside it as ``.json``, or in the folder that the test has."""
    return test.with_name(FINDING_NAME) if test.stem == f"test_{test.parent.name}" else test.with_suffix(".json")


def repro_beside(finding: Path) -> Path:
    """Return where the test of a finding file is; the inverse of `finding_file`."""
    if finding.name == FINDING_NAME:
        return finding.with_name(f"test_{finding.parent.name}.py")
    return finding.with_suffix(".py")


def named(path: Path) -> str:
    """Return a path as messages about its content name it, one line of bounded length."""
    return shortened(str(path), _PATH_SHOWN)


def is_readable(path: Path) -> bool:
    """Whether it is a file of a length that is read: no pipe, which may never end, no device, no folder."""
    try:
        return path.is_file() and path.stat().st_size <= _MAX_BYTES
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except IsADirectoryError:
        raise ScriptError(f"{named(path)}: a directory; expected a script, a finding or an emitted test") from None
    except OSError as error:
        raise ScriptError(f"{named(path)}: cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise ScriptError(f"{named(path)}: larger than {_MAX_BYTES >> 20} MB, so it is no script and no finding")
    return data


def _load_finding(path: Path, raw: dict[str, Any]) -> Case:
    source = named(path)
    if raw.get("format") != FINDING_FORMAT:
        got = short(raw["format"]) if "format" in raw else "none"
        raise ScriptError(f"{source}: format: this version reads findings of format {FINDING_FORMAT}, got {got}")
    if isinstance(raw["finding"], dict):
        # A script has checks that its types do not express.
        checked(raw["finding"].get("script"), f"{source}: finding.script")
    file = converted(raw, _FindingFile, source)
    refuse_unwritable(raw, source)
    found = replace(file.finding, signature=renewed(file.finding.signature, file.finding.violation))
    return Case(path, file.finding.script, found.signature, found, file.trace, file.test, file.suspect)


def _load_bug(path: Path, raw: dict[str, Any]) -> Case:
    source = named(path)
    if raw["bug_format"] != BUG_FORMAT:
        raise ScriptError(f"{source}: bug_format: this version reads {BUG_FORMAT}, got {short(raw['bug_format'])}")
    script = checked(raw.get("script"), f"{source}: script")
    signature = raw.get("signature")
    if not isinstance(signature, str):
        raise ScriptError(f"{source}: signature: expected a text, got {short(signature)}")
    refuse_unwritable(raw, source)
    return Case(path, script, signature)


def violation_beside(repro: Path) -> Violation | None:
    """Return the violation in the finding file of an emitted test; None where there is no valid one."""
    finding = finding_beside(repro)
    return finding.violation if finding is not None else None


def finding_beside(repro: Path) -> Finding | None:
    """Return the finding in the file beside an emitted test; None where there is none. Raises `ScriptError`."""
    path = finding_file(repro)
    raw = read_json(path) if path.is_file() else {}
    return _load_finding(path, raw).finding if isinstance(raw, dict) and "finding" in raw else None


def read_json(path: Path) -> Any:
    """Return the plain values in a JSON file. Raises `ScriptError`, one line that names the file and the problem."""
    return parsed(_read(path), named(path))


def _load_repro(path: Path) -> Case:
    spec = importlib.util.spec_from_file_location(f"_sr_fuzz_repro_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    old_addresses.install()
    keep_clean, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        script, promised = getattr(module, "SCRIPT", None), getattr(module, "SIGNATURE", None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also what pytest skips a module with, and what ends an interpreter
        raise ScriptError(f"{named(path)}: cannot be imported: {reason(error)}") from None
    finally:
        sys.dont_write_bytecode = keep_clean
    if not isinstance(script, Script):
        raise ScriptError(f"{named(path)}: no SCRIPT in it; expected a test that sr-fuzz emitted")
    if not isinstance(promised, str | None):
        raise ScriptError(f"{named(path)}: SIGNATURE: expected a string, got {shortened(type(promised).__name__)}")
    if promised is not None:
        promised = renewed(promised, violation_beside(path))
    return Case(path, validate(script, source=named(path)), promised)
