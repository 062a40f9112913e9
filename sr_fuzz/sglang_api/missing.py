"""What an SGLang lacks of the contract, and what is not checked for it.

A name that is missing is read nowhere by accident: whatever reads it gets Python's ``AttributeError`` or
``ImportError``, and `MissingNames.excuse` tells such an error from a mistake of ours.
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
"""What a name that is missing raises where it is read."""


class MissingNames:
    """The rows of the contract that one SGLang does not keep."""

    def __init__(self, rows: Iterable[Name] = ()) -> None:
        self.rows = tuple(rows)

    def unchecked(self, invariant: str) -> str | None:
        """Why an invariant cannot be checked; None when nothing that it needs is missing."""
        return next((row.lacking for row in self.rows if invariant in row.unchecked), None)

    def excuse(self, error: BaseException) -> str | None:
        """``this SGLang has no Req.priority`` where that is why ``error`` was raised; None for every other error."""
        if isinstance(error, UnsupportedVersion):
            return str(error)
        if not isinstance(error, ReadErrors) or not _raised_by_us(error.__traceback__):
            return None
        return next((row.lacking for row in self.rows if _is_about(error, row)), None)

    def or_default(self, read: Callable[[], _Value], default: _Value) -> _Value:
        """What ``read`` gives, or ``default`` where it needs what is missing."""
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
    named = any(f"'{name.partition('.')[0]}'" in str(error) for name in row.names if name)
    return error.name == module and (named or isinstance(error, ModuleNotFoundError))


def _raised_by_us(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame, the import system's aside, is one of ours: SGLang's own error is a finding."""
    module = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        module = module if name.startswith("importlib.") else name
        traceback = traceback.tb_next
    return module.partition(".")[0] == "sr_fuzz"


@functools.cache
def here() -> MissingNames:
    """What the SGLang that this process imports lacks."""
    import sglang

    return MissingNames(missing_rows(Path(sglang.__file__).parent))
