"""Translation of a file of any kind into a test for SGLang's own scripted runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sr_fuzz.cli.engines import search_path
from sr_fuzz.cli.errors import InputError
from sr_fuzz.cli.shared import violating

if TYPE_CHECKING:
    from sr_fuzz.emit.confirmed_sglang_repro import PlayTest, SglangTest
    from sr_fuzz.engine.contract import Engine
    from sr_fuzz.engine.upstream.runner import SglangRun
    from sr_fuzz.outcome.files import Case


def write(
    engine: Engine,
    case: Case,
    out: Path,
    fault: Sequence[str] | None,
    *,
    cause: str | None = None,
    purpose: str = "emit",
    force: bool = False,
) -> SglangTest:
    """Write a test for SGLang's own scripted runtime from a file of any kind; ``force`` replaces another one."""
    from sr_fuzz.emit.confirmed_sglang_repro import write_sglang_test
    from sr_fuzz.shrink.finding_steps import first_seen

    finding = case.finding or first_seen(case.script, violating(engine, case, purpose), engine).finding
    return write_sglang_test(finding, out, engine.run, complaints(engine), known_cause=cause, force=force)


def write_issue(
    engine: Engine, case: Case, out: Path, fault: Sequence[str] | None, *, cause: str | None = None, force: bool = False
) -> Path:
    """Write the text for an issue of SGLang, with a test for its own scripted runtime where there can be one."""
    from sr_fuzz.emit.issue import issue_text
    from sr_fuzz.emit.known_bug import why_not_told
    from sr_fuzz.emit.public_api import NotExpressible
    from sr_fuzz.emit.pytest_repro import stem
    from sr_fuzz.emit.replacing import check_same
    from sr_fuzz.engine.around.differential import compared
    from sr_fuzz.lifetime.owned_folders import owned_folder
    from sr_fuzz.outcome.writing import write_whole
    from sr_fuzz.shrink.finding_steps import first_seen, reproduce

    finding, trace = case.finding, case.trace
    if finding is None:
        engine = compared(engine, case.signature)
        seen = first_seen(case.script, violating(engine, case, "emit"), engine)
        finding, trace = reproduce(seen, engine).finding, seen.outcome.trace
    if why := why_not_told(finding):
        raise InputError(f"--format issue: {why}")
    cause = cause or _known_cause(case)
    test = None
    with owned_folder() as folder:
        try:
            test = write(engine, case, folder, fault).path.read_text()
        except NotExpressible:
            pass  # then the script itself is the reproduction
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"issue_{stem(finding)}.md"
    data = issue_text(finding, trace, cause=cause, test=test).encode()
    if not force:
        check_same(path, data)
    write_whole(path, data)
    return path


def _known_cause(case: Case) -> str | None:
    """Return the cause that the file of a known bug gives."""
    from sr_fuzz.bugs.catalogue import shipped

    bug = shipped().get(case.path.resolve())
    return bug.reason if bug is not None else None


def complaints(engine: Engine) -> PlayTest:
    from sr_fuzz.emit.sglang_repro import SCRIPT_FUNCTION
    from sr_fuzz.engine.upstream.runner import complaint_of

    return lambda path, config: complaint_of(engine, path, SCRIPT_FUNCTION, config)  # type: ignore[arg-type]


def run(path: Path, faults: Sequence[str], sglang: str | None = None) -> SglangRun:
    from sr_fuzz.engine.upstream.runner import run_file

    return run_file(path, faults=faults, sys_path=search_path(sglang))
