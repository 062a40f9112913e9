"""Objects that are read from SGLang, without the fields whose names this SGLang lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Partial:
    """Base class, without slots. Access to a field that could not be read raises the error of the read."""

    def take(self, field: str, read: Callable[[], Any]) -> None:
        """Set the field to the result of ``read``; the field is absent if that raises ``AttributeError`` or
        ``ImportError``."""
        try:
            self.__dict__[field] = read()
        except (AttributeError, ImportError) as error:
            self.__dict__.pop(field, None)
            self.__dict__.setdefault("_absent", {})[field] = error

    def __getattr__(self, name: str) -> Any:
        error = self.__dict__.get("_absent", {}).get(name)
        if isinstance(error, AttributeError):
            raise AttributeError(str(error), name=error.name, obj=error.obj)
        if error is not None:
            raise ImportError(str(error), name=error.name, path=error.path)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
