"""Writes a finding with a known cause as a file of `sr_fuzz.bugs.known_bugs`, to be added to the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sr_fuzz.bugs.catalogue import KnownBug, read_bug
from sr_fuzz.emit.commands import needs_comparison, needs_server
from sr_fuzz.emit.pytest_repro import TRACE_STEPS, stem
from sr_fuzz.faults import fixes
from sr_fuzz.outcome import Finding, StepRecord
from sr_fuzz.outcome.files import BUG_FORMAT
from sr_fuzz.outcome.plain_text import storable
from sr_fuzz.outcome.writing import write_whole


def emit_bug(
    finding: Finding, folder: Path, *, cause: str, releases: str | None = None, trace: Sequence[StepRecord] = ()
) -> Path:
    """Write ``<invariant>_<rule>_<hash>.json`` into ``folder``, which is created; returns its path.

    In an existing file, the fields that are filled in by hand (page, fixes, other signatures, releases) are kept.
    ``releases``: a version specifier; None for every release. Raises ``ValueError``, one line, for a finding that is
    not a bug of SGLang, did not reproduce, or needs more than one run, and for a file of another bug; `KnownError` for
    a file that cannot be read; `OSError`.
    """
    if why_not := _why_no_bug(finding):
        raise ValueError(why_not)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem(finding)}.json"
    before = read_bug(path) if path.exists() else None
    if before is not None and before.signature != finding.signature:
        raise ValueError(f"{path}: there is another bug, {before.signature}, in this file; move it first")
    bug = KnownBug(
        BUG_FORMAT,
        finding.signature,
        storable(cause),
        finding.script,
        also_seen_as=before.also_seen_as if before else (),
        faces=before.faces if before else {},
        releases=releases if releases is not None or before is None else before.releases,
        fixes=before.fixes if before else (),
        engine="server" if needs_server(finding) else "local",
        page=before.page if before else None,
        sglang_version=finding.sglang_version,
        violation=finding.violation,
        trace=tuple(trace)[-TRACE_STEPS:],
    )
    write_whole(path, msgspec.json.format(msgspec.json.encode(bug), indent=2) + b"\n")
    return path


def why_not_told(finding: Finding) -> str | None:
    """Return why a finding cannot be told to others as a bug of SGLang; None where it can."""
    if finding.faults and all(path.startswith(f"{fixes.__name__}.") for path in finding.faults):
        return f"seen with known bugs fixed, {', '.join(finding.faults)}: it has to show on SGLang as it is"
    if finding.faults:
        return f"found with a seeded fault, {', '.join(finding.faults)}: no bug of SGLang"
    if finding.tried and not finding.reproduced:
        return f"{finding.reliability}: what did not reproduce is not written out as a bug"
    return None


def _why_no_bug(finding: Finding) -> str | None:
    if (why := why_not_told(finding)) is not None:
        return why
    if needs_comparison(finding):
        return f"{finding.violation.invariant}: two runs are compared for it; a known bug shows in one"
    return None
