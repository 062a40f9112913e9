"""SGLang's ``Req``; the only module that reads its fields.

All code that observes a run gets a `Request`. A field that an SGLang lacks raises ``AttributeError`` where it is read;
`sr_fuzz.sglang_api.missing` has the effect of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sr_fuzz.sglang_api import request_state


class Request:
    """One ``Req``. It is compared by identity: `RequestViews` creates one object for each ``Req``."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        """SGLang's own object."""

    # -- what was asked for ------------------------------------------------------------------------------------

    @property
    def rid(self) -> str:
        return self.raw.rid

    @property
    def origin_input_ids(self) -> Sequence[int]:
        """The prompt; for a later turn of a session it is preceded by the history."""
        return self.raw.origin_input_ids

    @property
    def max_new_tokens(self) -> int:
        """The limit of the output, as clipped by SGLang."""
        return self.raw.sampling_params.max_new_tokens

    @property
    def stop_tokens(self) -> set[int]:
        """The tokens at which the request ends; none with ``ignore_eos``."""
        params = self.raw.sampling_params
        return set() if params.ignore_eos else {*(params.stop_token_ids or ()), *(self.raw.eos_token_ids or ())}

    @property
    def priority(self) -> int:
        return self.raw.priority

    @property
    def lora_id(self) -> str | None:
        """Id of its adapter; None for the base model."""
        return self.raw.lora_id

    @property
    def return_logprob(self) -> bool:
        return self.raw.return_logprob

    @property
    def logprob_start_len(self) -> int:
        """Position of the first prompt token whose logprob is requested; -1 for none."""
        return self.raw.logprob_start_len

    @property
    def top_logprobs_num(self) -> int:
        # In older releases it is an attribute of the request.
        return getattr(self.raw, "logprob", self.raw).top_logprobs_num

    @property
    def has_input_embeds(self) -> bool:
        """Whether its prompt was given as embeddings; such a request starts over when it is retracted."""
        return getattr(self.raw, "input_embeds", None) is not None

    @property
    def session_id(self) -> str | None:
        """The session of which it is a turn."""
        return self.raw.session.session_id if self.raw.session is not None else None

    @property
    def is_streaming_turn(self) -> bool:
        """Whether it is a turn of a streaming session."""
        return self.raw.session is not None and self.raw.session.streaming

    # -- how far it is -----------------------------------------------------------------------------------------

    @property
    def output_ids(self) -> Sequence[int]:
        return self.raw.output_ids

    @property
    def output_ids_through_stop(self) -> Sequence[int]:
        """Its output up to the token at which it stops."""
        return self.raw.output_ids_through_stop

    @property
    def output_through_stop(self) -> list[int]:
        """Its output as its client sees it."""
        return request_state.output_through_stop(self.raw)

    @property
    def retraction_count(self) -> int:
        return self.raw.retraction_count

    @property
    def is_finished(self) -> bool:
        return self.raw.finished()

    @property
    def finish(self) -> dict[str, Any] | None:
        """Its finish reason, as it is sent to clients."""
        reason = self.raw.finished_reason
        return None if reason is None else reason.to_json()

    @property
    def finish_to_come(self) -> dict[str, Any] | None:
        """The reason with which it is marked to end at its next step."""
        reason = self.raw.to_finish
        return None if reason is None else reason.to_json()

    @property
    def accepted_drafts(self) -> list[int]:
        """Number of its steps by number of accepted drafts; empty without speculative decoding."""
        return getattr(self.raw, "spec_correct_drafts_histogram", None) or []

    # -- what it holds -----------------------------------------------------------------------------------------

    @property
    def kv(self) -> request_state.KvState | None:
        """Its KV bookkeeping; None when it holds no row."""
        return request_state.kv_state(self.raw)

    @property
    def committed_len(self) -> int:
        return request_state.committed_len(self.raw)

    @property
    def row(self) -> int | None:
        """The row that it has, even if a session owns the KV in it."""
        return self.raw.req_pool_idx

    def has_record(self, record: Any) -> bool:
        """Whether ``record`` is its KV record, from 0.5.19 on."""
        return self.raw.kv is record

    @property
    def lock_node(self) -> Any:
        """Handle of the tree node whose path it has locked; None without a lock."""
        return request_state.lock_node(self.raw)

    @property
    def lock_receipt(self) -> request_state.LockReceipt:
        """The receipt of its lock, where `request_state.has_lock_receipts`."""
        return request_state.lock_receipt(self.raw)

    def window_freed(self, page_size: int) -> tuple[int, int]:
        """Return the row positions [from, to) whose pages of the sliding window's pool it has freed."""
        return request_state.window_freed(self.raw, page_size)

    @property
    def state_slots(self) -> list[int]:
        """Slots of recurrent states that it holds, its own slot first."""
        return request_state.state_slots(self.raw)

    @property
    def state_pending(self) -> bool:
        """Whether its own state is still to be copied or cleared."""
        return request_state.state_pending(self.raw)


class RequestViews:
    """The requests of one run, one object for each, including finished ones, in the order of their first appearance."""

    def __init__(self) -> None:
        self._known: dict[int, Request] = {}

    def of(self, raw: Any) -> Request:
        """Return the object for this ``Req``; it is kept for the whole run."""
        found = self._known.get(id(raw))
        if found is None:
            found = self._known[id(raw)] = Request(raw)
        return found

    def every(self) -> list[Request]:
        return list(self._known.values())
