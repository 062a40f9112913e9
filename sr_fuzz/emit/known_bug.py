"""A finding with a known cause as a file of `sr_fuzz.bugs.known_bugs`, for whoever adds it to the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sr_fuzz.bugs.catalogue import KnownBug
from sr_fuzz.emit.pytest_repro import TRACE_STEPS, needs_comparison, needs_server, stem
from sr_fuzz.outcome import Finding, StepRecord
from sr_fuzz.outcome.files import BUG_FORMAT


def emit_bug(
    finding: Finding, folder: Path, *, cause: str, releases: str | None = None, trace: Sequence[StepRecord] = ()
) -> Path:
    """Write ``<invariant>_<rule>_<hash>.json`` into ``folder``, which is created; returns its path.

    ``releases``: a version specifier, None for every release. Raises ``ValueError``, one line, for a finding that one
    run alone does not show; `OSError`.
    """
    if needs_comparison(finding):
        raise ValueError(f"{finding.violation.invariant}: two runs are compared for it; a known bug shows in one")
    bug = KnownBug(
        BUG_FORMAT,
        finding.signature,
        cause,
        finding.script,
        releases=releases,
        engine="server" if needs_server(finding) else "local",
        sglang_version=finding.sglang_version,
        violation=finding.violation,
        trace=tuple(trace)[-TRACE_STEPS:],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem(finding)}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(bug), indent=2) + b"\n")
    return path
