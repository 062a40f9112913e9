"""The context of a script function: SGLang's ``ScriptedContext``, with the same names, on our transport.

Each public method sends a real message, drives an exhauster, or reads. The methods in the second half of the class are
what scripts as data need in addition to that API (arbitrary prompts, eviction through the tree, rows).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sr_fuzz.runtime import queries
from sr_fuzz.runtime.exhausters import ScriptedKvPoolExhauster, ScriptedLockRefExhauster
from sr_fuzz.runtime.hook import ScriptedSchedulerHook
from sr_fuzz.runtime.req_handle import ScriptedReqHandle
from sr_fuzz.runtime.transport import Transport
from sr_fuzz.sglang_api import clock, request_state, session_clock
from sr_fuzz.sglang_api.clock import VirtualClock


class ScriptedContext:
    """The interface of one script to the engine."""

    def __init__(
        self,
        *,
        scheduler_hook: ScriptedSchedulerHook,
        transport: Transport,
        flushes: Callable[[], int] = lambda: 0,
        rid_suffix: str = ".",
    ) -> None:
        """``flushes`` returns the number of successful flushes so far: a flush frees what the exhausters hold.

        ``rid_suffix`` is appended to the generated request ids. It begins and ends with a dot, and is unique for each
        script of a server: two seconds after a stream's end SGLang aborts its request id again, even if a new request
        uses it.
        """
        self.rid_suffix = rid_suffix
        self.scheduler = scheduler_hook.scheduler
        self._scheduler_hook = scheduler_hook
        self._transport = transport
        self._seen_rids: set[str] = set()
        self._kv_exhauster = ScriptedKvPoolExhauster(self.scheduler, flushes)
        self._lock_ref_exhauster = ScriptedLockRefExhauster(self.scheduler, flushes)
        self._started = 0

    # -- SGLang's API ------------------------------------------------------------------------------------------

    def start_req(
        self,
        *,
        prompt_len: int,
        max_new_tokens: int = 8,
        rid: str | None = None,
        ignore_eos: bool = False,
        priority: int | None = None,
        dp_rank: int | None = None,
        prompt_token: int = 1,
        return_logprob: bool = False,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        stop_token_ids: list[int] | None = None,
        temperature: float | None = None,
        lora_path: str | None = None,
    ) -> ScriptedReqHandle:
        """Send a request of ``prompt_len`` equal tokens. A generated ``rid`` is no prefix of another one."""
        if rid is None:
            # Fixed width: SGLang aborts by rid *prefix*, so an abort of scripted-1 would also abort scripted-10.
            rid = f"scripted-{self._started:06d}{self.rid_suffix}"
            self._started += 1
        fields: dict[str, Any] = {"return_logprob": return_logprob}
        for name, value in (
            ("logprob_start_len", logprob_start_len),
            ("top_logprobs_num", top_logprobs_num),
            ("priority", priority),
            ("routed_dp_rank", dp_rank),
            ("lora_path", lora_path),
        ):
            if value is not None:
                fields[name] = value
        sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "ignore_eos": ignore_eos}
        if stop_token_ids is not None:
            sampling["stop_token_ids"] = stop_token_ids
        if temperature is not None:
            sampling["temperature"] = temperature
        return self.start_tokens(rid=rid, input_ids=[prompt_token] * prompt_len, sampling=sampling, **fields)

    def pause_generation(self, *, mode: Literal["retract", "in_place"]) -> None:
        self._transport.pause(mode)

    def continue_generation(self, *, torch_empty_cache: bool = False) -> None:
        self._transport.continue_(torch_empty_cache)

    def abort_all(self) -> None:
        self._transport.abort("", abort_all=True)

    def abort(self, handle: ScriptedReqHandle, *, await_arrival: bool = True) -> None:
        self._transport.abort(handle.rid, await_arrival=await_arrival)

    def flush_cache(self) -> None:
        self._transport.flush_cache()

    def evict_radix(self, *, prefix_tokens: list[int] | None) -> None:
        """Evict the whole prefix cache by a flush, as in SGLang's runtime.

        See `evict_tree` for the tree's own eviction.
        """
        if prefix_tokens is not None:
            # An AssertionError, because tests of SGLang's runtime expect one.
            raise AssertionError("evict_radix supports only full eviction: pass prefix_tokens=None")
        self._transport.flush_cache()

    def exhaust_kv(self, *, leave_pages: int) -> None:
        self._kv_exhauster.exhaust(leave_pages=leave_pages)

    def exhaust_lock_refs(self, *, leave_refs: int) -> None:
        self._lock_ref_exhauster.exhaust(leave_refs=leave_refs)

    def _release_exhausted_pools(self) -> None:
        self._kv_exhauster.release()
        self._lock_ref_exhauster.release()

    def get_all_node_hit_counts(self) -> dict[int, int]:
        return queries.get_all_node_hit_counts(self)

    def get_all_node_lock_refs(self) -> dict[int, int]:
        return queries.get_all_node_lock_refs(self)

    @property
    def is_idle(self) -> bool:
        return queries.is_idle(self)

    @property
    def is_fully_idle(self) -> bool:
        return queries.is_fully_idle(self)

    @property
    def last_batch_forward_mode(self) -> str | None:
        return queries.last_batch_forward_mode(self)

    def find_req_by_rid(self, rid: str) -> Any | None:
        return queries.find_req_by_rid(self, rid)

    def is_finished(self, rid: str) -> bool:
        return queries.is_finished(self, rid)

    def is_chunking(self, rid: str) -> bool:
        return queries.is_chunking(self, rid)

    def status(self, rid: str) -> str:
        return queries.status(self, rid)

    def remaining_prompt_tokens(self, rid: str) -> int:
        return queries.remaining_prompt_tokens(self, rid)

    def list_active_reqs(self) -> list[Any]:
        return queries.list_active_reqs(self)

    def chunks_done(self, rid: str) -> int:
        return queries.chunks_done(self, rid)

    def chunked_parks(self, rid: str) -> int:
        return queries.chunked_parks(self, rid)

    def batch_composition(self) -> dict[str, list[str]]:
        return queries.batch_composition(self)

    def engine_stats(self) -> dict[str, int]:
        return queries.engine_stats(self)

    # -- what scripts as data need beyond it -------------------------------------------------------------------

    def start_tokens(
        self, *, rid: str, input_ids: Sequence[int], sampling: dict[str, Any], **fields: Any
    ) -> ScriptedReqHandle:
        """Send a request with any prompt; ``sampling`` and ``fields`` are fields of a ``/generate`` body."""
        self._transport.generate(rid=rid, input_ids=input_ids, sampling=sampling, **fields)
        return ScriptedReqHandle(rid=rid, context=self)

    def start_embedding(self, *, rid: str, input_ids: Sequence[int], **fields: Any) -> ScriptedReqHandle:
        """Send an embedding request with any prompt; ``fields`` are fields of an ``/encode`` body."""
        self._transport.embed(rid=rid, input_ids=input_ids, **fields)
        return ScriptedReqHandle(rid=rid, context=self)

    def abort_rid(self, rid: str, *, await_arrival: bool = True) -> None:
        """Abort by request id, which need not be known."""
        self._transport.abort(rid, await_arrival=await_arrival)

    def abort_all_later(self) -> None:
        """An `abort_all` whose arrival is not awaited."""
        self._transport.abort("", abort_all=True, await_arrival=False)

    def pause_abort(self) -> None:
        """Pause in mode ``abort``."""
        self._transport.pause("abort")

    def control(self, call: str, **fields: Any) -> None:
        """Make any other control call of `sr_fuzz.sglang_api.messages.CONTROLS`; ``fields`` are fields of its body."""
        self._transport.control(call, **fields)

    def evict_tree(self, num_tokens: int | None) -> None:
        """Call the prefix cache's own ``evict`` for ``num_tokens`` tokens, or for all tokens without a lock."""
        request_state.evict(self.scheduler.tree_cache, num_tokens)

    def advance_clock(self, seconds: float) -> None:
        """Advance the clock of the scheduler's time-outs; no effect if it uses the machine's own clock."""
        source = clock.clock_of(self.scheduler)
        if isinstance(source, VirtualClock):
            source.advance(seconds)
        session_clock.advance(seconds)

    @property
    def held_slots(self) -> list[int]:
        """KV slots that the exhauster holds."""
        return self._kv_exhauster.held_slots

    @property
    def locked_handles(self) -> list[Any]:
        """Tree nodes that the exhauster has locked."""
        return self._lock_ref_exhauster.locked_handles

    @property
    def tree_locks(self) -> list[tuple[Any, Any]]:
        """The locked nodes with the receipts of their locks."""
        return self._lock_ref_exhauster.locks

    @property
    def http_responses(self) -> Mapping[str, Any] | None:
        """The HTTP exchanges of generate requests, by request id; None on an engine without HTTP."""
        return self._transport.responses

    @property
    def put_off(self) -> Sequence[str]:
        """Deferred calls of this script, which the tokenizer manager would not pass on yet, in order."""
        return self._transport.put_off

    def await_samples(self, timeout_s: float) -> bool:
        """Wait, without a step, for what the server still sends of requests for several samples.

        Returns whether the scheduler has something to take.
        """
        return self._transport.await_samples(timeout_s)

    def settle(self, timeout_s: float) -> str:
        """Wait until every HTTP client has its answer, without a step; returns a text on the requests that have
        none."""
        return self._transport.settle(timeout_s)
