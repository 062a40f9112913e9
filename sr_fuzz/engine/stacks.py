"""Extracts code locations in SGLang from an exception or a dumped stack."""

from __future__ import annotations

import functools
import importlib.util
import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

# Number of innermost locations that are kept: the first one is the place, the second its caller. More of them would
# split one bug by its callers.
MAX_LOCATIONS = 4

# Decorators that wrap many methods of the scheduler do not tell where it failed.
_WRAPPERS = re.compile(r"/(?:nvtx_utils|scheduler_stage_metrics)\.py$")

# Compared by folder, not by name: a checkout called sr_fuzz may contain SGLang and torch in its virtual environment.
_PROJECT = Path(__file__).parents[2]
_OURS = (f"{_PROJECT}/sr_fuzz/", f"{_PROJECT}/invariants/")
# The model is part of the engine under test: an error in it may be caused by the arguments that SGLang passes.
_MODEL = f"{_PROJECT}/sr_fuzz/oracle/models/"
_DUMPED = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$')


@functools.cache
def sglang_folder() -> str:
    """Return the folder of SGLang's package in this process, found without importing it."""
    spec = importlib.util.find_spec("sglang")
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else ""


def _in_sglang(filename: str, package: str = "") -> str | None:
    """Return the path below SGLang's package (without ``srt/``); None for a file outside it."""
    folder = f"{package or sglang_folder()}/"
    return filename.removeprefix(folder).removeprefix("srt/") if filename.startswith(folder) else None


def _place(filename: str, function: str, line: str, package: str = "") -> str | None:
    inside = _in_sglang(filename, package)
    if inside is None or _WRAPPERS.search(filename):
        return None
    # The source line and not its number, because it is stable across edits elsewhere in the file and across releases.
    return f"{inside}:{function}: {line.strip()[:100]}"


def locations(tb: TracebackType | None) -> tuple[str, ...]:
    """Return the innermost SGLang locations of a traceback, innermost first."""
    frames = traceback.extract_tb(tb)
    places = (_place(f.filename, f.name, f.line or "") for f in reversed(frames))
    return _first(places)


def dumped_locations(text: str, package: str = "") -> tuple[str, ...]:
    """Return the same from a stack that faulthandler wrote (innermost call first).

    ``package``: folder of the SGLang that wrote it, by default the one of this process.
    """
    places = []
    for line in text.splitlines():
        match = _DUMPED.match(line)
        if match:
            source = linecache.getline(match["file"], int(match["line"]))
            places.append(_place(match["file"], match["name"], source, package))
    return _first(places)


def portable(stack: str, package: str = "") -> str:
    """Return a stack without the folders of this machine, for reports and for files that are committed.

    ``package``: folder of the SGLang that wrote it, by default the one of this process.
    """
    paths = sysconfig.get_paths()
    roots = [str(Path(package or sglang_folder()).parent), str(_PROJECT), paths["purelib"], paths["stdlib"]]
    for root in sorted(roots, key=len, reverse=True):
        stack = stack.replace(f'File "{root}/', 'File "')
    return stack


def _first(places: Iterable[str | None]) -> tuple[str, ...]:
    return tuple([place for place in places if place is not None][:MAX_LOCATIONS])


def is_ours(tb: TracebackType | None) -> bool:
    """Whether an exception comes from this project's own code rather than from SGLang.

    The innermost frame that belongs to either one decides; frames of libraries (torch, the standard library) below it
    count as part of their caller.
    """
    for frame in reversed(traceback.extract_tb(tb)):
        if _in_sglang(frame.filename) is not None or frame.filename.startswith(_MODEL):
            return False
        if frame.filename.startswith(_OURS):
            return True
    return True
