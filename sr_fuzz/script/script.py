"""The script itself: an engine configuration and the actions to play on it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sr_fuzz.script.actions import EXHAUSTERS, Action, OpenSession, StartReq
from sr_fuzz.script.engine_config import EngineConfig

FORMAT_VERSION = 1
"""Format version; it is raised whenever an old file would be read with another meaning."""

# A longer script shows nothing that a shorter one cannot, and its trace does not fit in a report.
MAX_ACTIONS = 500


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine configuration and the actions to play on it."""

    config: EngineConfig
    actions: Annotated[tuple[Action, ...], Meta(max_length=MAX_ACTIONS)]
    format: int = FORMAT_VERSION

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the requests that it starts, in order."""
        return tuple(a.name for a in self.actions if isinstance(a, StartReq))

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions that it opens, each once, in order."""
        return tuple(dict.fromkeys(a.name for a in self.actions if isinstance(a, OpenSession)))

    @property
    def uses_exhausters(self) -> bool:
        return any(isinstance(a, EXHAUSTERS) for a in self.actions)
