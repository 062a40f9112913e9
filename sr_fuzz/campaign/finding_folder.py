"""The folder of one finding in a store: its test and its finding, and what other programs and people read beside them.

``finding.json``
    the finding, as `sr_fuzz.outcome.files` reads it
``test_<name>.py``
    the emitted test
``minimal.json``, ``original.json``
    the minimal script, and that with which the finding was seen first, for ``sr-fuzz replay``
``trace.json``
    each step of the run that showed it, as a list of `sr_fuzz.outcome.StepRecord`
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from sr_fuzz.outcome.writing import write_whole
from sr_fuzz.script import Script, to_json
from sr_fuzz.shrink.finding_steps import Investigated

MINIMAL = "minimal.json"
ORIGINAL = "original.json"
TRACE = "trace.json"


def fill(folder: Path, seen: Investigated, original: Script | None) -> None:
    """Write the files beside the test and the finding, which make them again where they are lost.

    ``original``: None where it is not known, since an earlier campaign has seen the finding first and was killed; an
    older file stays. Raises `OSError`.
    """
    files = {MINIMAL: to_json(seen.finding.script), TRACE: _trace(seen)}
    if original is not None:
        files[ORIGINAL] = to_json(original)
    for name, data in files.items():
        write_whole(folder / name, data)


def _trace(seen: Investigated) -> bytes:
    lines = b",\n".join(map(msgspec.json.encode, seen.outcome.trace))
    return b"[\n" + lines + b"\n]\n"
