"""Objects that are read from SGLang as far as this SGLang has what they are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Partial:
    """Base class, without slots. A field that could not be read raises, where it is asked for, that error."""

    def take(self, field: str, read: Callable[[], Any]) -> None:
        """Set the field to what ``read`` gives; where that raises ``AttributeError`` it is absent."""
        try:
            self.__dict__[field] = read()
        except AttributeError as error:
            self.__dict__.pop(field, None)
            self.__dict__.setdefault("_absent", {})[field] = error

    def __getattr__(self, name: str) -> Any:
        error = self.__dict__.get("_absent", {}).get(name)
        if error is not None:
            raise AttributeError(str(error), name=error.name, obj=error.obj)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
