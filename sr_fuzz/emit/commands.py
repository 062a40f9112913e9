"""Commands to be copied: what runs a finding, with the SGLang and the faults that it was found with."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

from sr_fuzz.outcome import Finding
from sr_fuzz.sglang_api.versions import installed_package, version_in

# The violations of `sr_fuzz.engine.around.differential`, which compare two runs of a script.
_COMPARISONS = ("determinism", "schedule_dependent_output")


def needs_comparison(finding: Finding) -> bool:
    """Whether a single run cannot show the finding."""
    return finding.violation.invariant in _COMPARISONS


def needs_server(finding: Finding) -> bool:
    """Whether only the server engine can show the finding, because it needs HTTP clients or several ranks."""
    return finding.violation.invariant == "http_answers" or finding.script.config.world_size > 1


def program(name: str) -> str:
    """Return how a program of this environment is called from here: its name, if that is enough, else its path."""
    path = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and Path(found).absolute() == path.absolute():
        return name
    return shlex.quote(_from_here(path))


def pytest_command(finding: Finding, test: Path) -> str:
    """Return the command that runs an emitted test where it was found."""
    return " ".join([program("pytest"), *_origin(finding, "--sr-sglang", "--sr-fault"), shlex.quote(_from_here(test))])


def sr_fuzz_command(finding: Finding, command: str, file: Path, *options: str) -> str:
    """Return a command of ``sr-fuzz`` on a finding's file, to be run where it was found."""
    parts = [program("sr-fuzz"), command, shlex.quote(_from_here(file)), *options]
    return " ".join([*parts, *_origin(finding, "--sglang", "--fault")])


def _origin(finding: Finding, sglang: str, fault: str) -> list[str]:
    source = finding.sglang_tree or _other_release(finding.sglang_version)
    there = [sglang, shlex.quote(source)] if source is not None else []
    return there + [part for path in finding.faults for part in (fault, shlex.quote(path))]


def _other_release(version: str) -> str | None:
    """Return the release that must be named because it is not the installed one; None for what is no release."""
    try:
        Version(version)
    except InvalidVersion:
        return None
    return version if version != installed_version() else None


@functools.cache
def installed_version() -> str | None:
    package = installed_package()
    return version_in(package) if package is not None else None


def _from_here(path: Path) -> str:
    """Return the path from the working folder if it lies below it, else as it is."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
