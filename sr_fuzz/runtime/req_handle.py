"""The handle of a request in a script function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sr_fuzz.runtime.protocols import RequestQueries
from sr_fuzz.sglang_api import request_state
from sr_fuzz.sglang_api.node_handles import get_node_lock_ref


@dataclass(frozen=True, slots=True)
class ScriptedReqHandle:
    """A handle on one request, with the names and meanings of SGLang's scripted runtime."""

    rid: str
    context: RequestQueries

    @property
    def req(self) -> Any | None:
        """SGLang's ``Req`` while it is in a queue or a batch."""
        return self.context.find_req_by_rid(self.rid)

    @property
    def finished(self) -> bool:
        return self.context.is_finished(self.rid)

    @property
    def is_chunking(self) -> bool:
        return self.context.is_chunking(self.rid)

    @property
    def chunks_done(self) -> int:
        return self.context.chunks_done(self.rid)

    @property
    def status(self) -> str:
        return self.context.status(self.rid)

    @property
    def remaining_prompt_tokens(self) -> int:
        return self.context.remaining_prompt_tokens(self.rid)

    @property
    def kv_pages(self) -> int:
        """Number of pages of its KV, including the shared prefix; 0 when it holds none."""
        req = self.req
        state = request_state.kv_state(req) if req is not None else None
        return 0 if state is None else -(-state.allocated // self.context.scheduler.page_size)

    @property
    def lock_refs(self) -> int:
        """Lock count of the tree node at which its prefix ends."""
        req = self.req
        return 0 if req is None else get_node_lock_ref(self.context.scheduler.tree_cache, req.last_node)
