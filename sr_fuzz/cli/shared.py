"""Helpers for files, folders and engines that several commands share."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sr_fuzz.cli.errors import InputError

if TYPE_CHECKING:
    from sr_fuzz.engine.contract import Engine
    from sr_fuzz.outcome import Outcome
    from sr_fuzz.outcome.files import Case
    from sr_fuzz.script import EngineConfig


def find_configs(names: Sequence[str], *, option: str = "--config") -> dict[str, EngineConfig]:
    """Look up configurations and sets that ``option`` names; empty if it names none."""
    from sr_fuzz.strategies.configs import find_configs

    try:
        return find_configs(names) if names else {}
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def check_folder(folder: Path, option: str = "--out") -> None:
    """Refuse a folder that files could not be written to, before the work that produces them.

    It is made for a test and removed, with the folders above it that were made: a run that finds nothing leaves none.
    """
    missing: list[Path] = []
    try:
        missing += [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".sr-fuzz-"):
            pass
    except OSError as error:
        raise InputError(f"{option}: {folder} cannot be written to: {error.strerror or error}") from None
    finally:
        for each in missing:
            with contextlib.suppress(OSError):  # it was not made, or another process has begun to write to it
                each.rmdir()


def check_target(option: str, path: Path | None) -> None:
    """Refuse a file that could not be written, before the work that produces its content."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{option}: {folder} is not a folder")
    if path.is_dir():
        raise InputError(f"{option}: {path} is a folder; expected the name of a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{option}: {path} is not writable")


def violating(engine: Engine, case: Case, purpose: str) -> Outcome:
    outcome = engine.run(case.script)
    if outcome.violation is None:
        raise InputError(f"{case.path}: {outcome.report()}; nothing to {purpose}")
    return outcome


def mention_origin(case: Case, given: Sequence[str] | None, sglang: str | None = None) -> None:
    """Print notes on the faults and the source tree that the file names.

    A file does not activate them by itself, because that would run code that it names.
    """
    from sr_fuzz.outcome.files import finding_beside, named
    from sr_fuzz.script.wording import shortened

    finding = case.finding or (finding_beside(case.path) if case.path.suffix == ".py" else None)
    if finding is None:
        return
    missing = sorted(set(finding.faults) - set(given or ()))
    if missing:
        options = " ".join(f"--fault {shortened(path)}" for path in missing[:_MOST_FAULTS])
        more = f" and {len(missing) - _MOST_FAULTS} more" if len(missing) > _MOST_FAULTS else ""
        typer.echo(f"sr-fuzz: note: {named(case.path)} was found with {options}{more}", err=True)
    if finding.sglang_tree is not None and sglang is None:
        told = f"was found in a source tree: --sglang {shortened(shlex.quote(finding.sglang_tree))}"
        typer.echo(f"sr-fuzz: note: {named(case.path)} {told}", err=True)


_MOST_FAULTS = 4
