"""Protocols of the context that its parts need: the parts import this module, and the context imports the parts."""

from __future__ import annotations

from typing import Any, Protocol


class QueriedContext(Protocol):
    """The attributes that `sr_fuzz.runtime.queries` and `sr_fuzz.runtime.radix` read."""

    scheduler: Any
    _scheduler_hook: Any
    _seen_rids: set[str]


class RequestQueries(Protocol):
    """The queries of a request handle, each by request id."""

    scheduler: Any

    def find_req_by_rid(self, rid: str) -> Any | None: ...

    def is_finished(self, rid: str) -> bool: ...

    def is_chunking(self, rid: str) -> bool: ...

    def chunks_done(self, rid: str) -> int: ...

    def status(self, rid: str) -> str: ...

    def remaining_prompt_tokens(self, rid: str) -> int: ...
