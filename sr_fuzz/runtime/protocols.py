"""What the parts of the context need of it: they import this, the context imports them."""

from __future__ import annotations

from typing import Any, Protocol


class QueriedContext(Protocol):
    """What `sr_fuzz.runtime.queries` and `sr_fuzz.runtime.radix` read."""

    scheduler: Any
    _scheduler_hook: Any
    _seen_rids: set[str]


class RequestQueries(Protocol):
    """What a request handle asks for, each by request id."""

    scheduler: Any

    def find_req_by_rid(self, rid: str) -> Any | None: ...

    def is_finished(self, rid: str) -> bool: ...

    def is_chunking(self, rid: str) -> bool: ...

    def chunks_done(self, rid: str) -> int: ...

    def status(self, rid: str) -> str: ...

    def remaining_prompt_tokens(self, rid: str) -> int: ...
