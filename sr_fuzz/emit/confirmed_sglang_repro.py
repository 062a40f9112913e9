"""Writes a finding as a test for SGLang's own scripted runtime, only if the test fails on the local engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from sr_fuzz.emit.public_api import NotExpressible, to_public_api
from sr_fuzz.emit.sglang_repro import emit_sglang
from sr_fuzz.lifetime.owned_folders import owned_folder
from sr_fuzz.outcome import Finding, StepRecord, Violation
from sr_fuzz.script import EngineConfig
from sr_fuzz.shrink.minimise import Run

PlayTest = Callable[[Path, EngineConfig], str | None]
"""Plays the script function of an emitted test on the local engine; returns the error that it raised, or None."""


class SglangTest(NamedTuple):
    """A test for SGLang's own scripted runtime that was written for a finding and also fails on the local engine."""

    path: Path
    finding: Finding
    """The finding with the translated script, and the violation that this script shows."""
    complaint: str
    """The error of the test on the local engine."""


def translate(finding: Finding, run: Run) -> tuple[Finding, tuple[StepRecord, ...]]:
    """Return the finding with a script that SGLang's public API can play, and the trace of a run that still shows it.

    The violation must have the same invariant and rule; its location in SGLang may differ. Raises `NotExpressible`.
    """
    wanted, shown = finding.violation, None
    for share_prefixes in (True, False):
        script = to_public_api(finding.script, share_prefixes=share_prefixes)
        outcome = run(script)
        shown = outcome.violation
        if shown is not None and (shown.invariant, shown.rule) == (wanted.invariant, wanted.rule):
            return replace(finding, script=script, violation=shown), outcome.trace
    raise NotExpressible(
        f"said in the API of SGLang's scripted runtime, the script shows {_name(shown)} instead of {_name(wanted)}"
    )


def _name(violation: Violation | None) -> str:
    return "nothing" if violation is None else f"{violation.invariant}: {violation.rule}"


def write_sglang_test(
    finding: Finding,
    folder: Path,
    run: Run,
    play: PlayTest,
    *,
    known_cause: str | None = None,
    force: bool = False,
) -> SglangTest:
    """Translate ``finding`` and write it into ``folder`` as a test for SGLang's own scripted runtime.

    A test whose own checks detect nothing on the local engine is not written: `NotExpressible` is raised, as for a
    script that SGLang's API cannot play. Raises `NotReplaced` where another test has that name, unless ``force``.
    """
    translated, trace = translate(finding, run)
    with owned_folder() as trial:
        complaint = play(emit_sglang(translated, trial, trace=trace), translated.script.config)
    if complaint is None:
        raise NotExpressible(
            f"{_name(finding.violation)} does not show in what SGLang's scripted runtime lets a test look at"
        )
    path = emit_sglang(translated, folder, known_cause=known_cause, trace=trace, force=force)
    return SglangTest(path, translated, complaint)

