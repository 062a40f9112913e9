"""The names of the contract that an SGLang lacks, and what cannot be checked without them.

Code that reads a missing name gets Python's ``AttributeError`` or ``ImportError``. `MissingNames.excuse` distinguishes
such an error from a mistake of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api.contract import missing_rows
from sr_fuzz.sglang_api.contract_table import Name

_Value = TypeVar("_Value")

ReadErrors = (AttributeError, ImportError, UnsupportedVersion)
"""The errors that reading a missing name raises."""


class MissingNames:
    """The rows of the contract whose names one SGLang lacks."""

    def __init__(self, rows: Iterable[Name] = ()) -> None:
        self.rows = tuple(rows)

    def unchecked(self, invariant: str) -> str | None:
        """Return why an invariant cannot be checked; None when no name that it needs is missing."""
        return next((row.lacking for row in self.rows if invariant in row.unchecked), None)

    def lacks(self, *names: str) -> str | None:
        """Why a part of an invariant cannot be checked that reads these names; None when all of them are there."""
        return next((row.lacking for row in self.rows if set(names) & set(row.names)), None)

    def excuse(self, error: BaseException) -> str | None:
        """Return e.g.

        ``this SGLang has no Req.priority`` if that is the cause of ``error``; None for any other error.
        """
        if isinstance(error, UnsupportedVersion):
            return str(error)
        if not isinstance(error, ReadErrors) or not _raised_by_us(error.__traceback__):
            return None
        return next((row.lacking for row in self.rows if _is_about(error, row)), None)

    def or_default(self, read: Callable[[], _Value], default: _Value) -> _Value:
        """Return the result of ``read``, or ``default`` if it needs a missing name."""
        try:
            return read()
        except ReadErrors as error:
            if self.excuse(error) is None:
                raise
            return default


def _is_about(error: BaseException, row: Name) -> bool:
    if isinstance(error, AttributeError):
        return any(error.name == name.rpartition(".")[2] for name in row.names)
    module = f"sglang.{row.module}"
    package, _, below = module.rpartition(".")
    if isinstance(error, ModuleNotFoundError):
        return error.name == module
    # Of `from package import module`, too, it is the package that is named.
    wanted = {(module, name.partition(".")[0]) for name in row.names} | {(package, below)}
    return any(error.name == where and name and f"'{name}'" in str(error) for where, name in wanted)


def _raised_by_us(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame, apart from the import system's, is ours. An error of SGLang itself is a finding."""
    module = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        module = module if name.startswith("importlib.") else name
        traceback = traceback.tb_next
    return module.partition(".")[0] == "sr_fuzz"


@functools.cache
def here() -> MissingNames:
    """Return the names that the SGLang of this process lacks."""
    import sglang

    return MissingNames(missing_rows(Path(sglang.__file__).parent))
