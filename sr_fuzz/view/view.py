"""The view: read-only access to the scheduler's state, the same whatever the release and the cache kind.

The state is read once per step, into a `Snapshot`. Every request object that was ever seen in a queue or in a batch is
kept, finished or not, because a lost request is exactly what the queues do not show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from sr_fuzz.runtime.context import ScriptedContext
from sr_fuzz.runtime.recorder import OutputRecorder, Stream
from sr_fuzz.sglang_api import missing, request_state, scheduler_state, trees
from sr_fuzz.sglang_api.allocators import full_pool, only_window, state_allocator, two_pools, window_pool
from sr_fuzz.sglang_api.incoming import Received
from sr_fuzz.sglang_api.outputs import FLUSH_REPLY
from sr_fuzz.sglang_api.requests import Request, RequestViews
from sr_fuzz.sglang_api.scheduler_facts import SchedulerFacts
from sr_fuzz.sglang_api.trees import components, readable, root_node_id
from sr_fuzz.view.batches import Launched, read_batch
from sr_fuzz.view.sessions import Ledger, open_sessions
from sr_fuzz.view.snapshot import Snapshot, name_of

__all__ = ["SchedulerView", "name_of"]


class SchedulerView:
    """The object that invariants are given: `refresh` starts a new snapshot, everything else reads."""

    def __init__(self, *, scheduler: Any, context: ScriptedContext, recorder: OutputRecorder, proxy: Any) -> None:
        self.scheduler = scheduler
        self.context = context
        self.recorder = recorder
        self._proxy = proxy
        self._requests = RequestViews()
        self.missing = missing.here()
        """What this SGLang lacks."""
        self.arrived: dict[str, int] = {}
        """Generate requests that reached the scheduler: request id -> step of arrival."""
        self.prompts: dict[str, list[int]] = {}
        """The prompt with which each of them was sent; for a turn of a session, its history comes first."""
        self._adapters: dict[str, str | None] = {}
        overlap = bool(getattr(scheduler, "enable_overlap", False))
        self._ledger = Ledger(recorder.streams.get, self._output_of, pause_drains=overlap)
        self._ledger_lost: AttributeError | None = None
        self.received: list[Received] = []
        """Messages that the scheduler took in the step that just ended."""
        self.forward_steps = 0
        self.batches: list[Any] = []
        """Forward mode name and request ids of the batches launched in the step that just ended."""
        self.launched: list[Launched] = []
        """The same batches, with the part of each request that they compute."""
        self.now = Snapshot(self, 0)

    # -- constants of the run ----------------------------------------------------------------------------------

    @cached_property
    def facts(self) -> SchedulerFacts:
        """Settings and kinds that do not change during the run."""
        return SchedulerFacts(self.scheduler)

    @property
    def allocator(self) -> Any:
        return self.scheduler.token_to_kv_pool_allocator

    @property
    def page_size(self) -> int:
        return self.scheduler.page_size

    @property
    def num_pages(self) -> int:
        return full_pool(self.allocator).size // self.page_size

    @property
    def window(self) -> int | None:
        """How many positions before its own a query of a sliding-window layer sees; None without such layers."""
        return self.scheduler.sliding_window_size if hasattr(self.allocator, "swa_attn_allocator") else None

    @property
    def has_window_pool(self) -> bool:
        """Whether the sliding window has pages of its own, beside those of full attention."""
        return two_pools(self.allocator)

    @property
    def sees_window_only(self) -> bool:
        return only_window(self.allocator)

    @property
    def num_window_pages(self) -> int:
        return window_pool(self.allocator).size // self.page_size

    @property
    def state_allocator(self) -> Any | None:
        """Allocator of slots for recurrent states; None where the model has none."""
        return state_allocator(self.scheduler.req_to_token_pool)

    @property
    def tree_components(self) -> set[str]:
        """What the tree keeps for a node: ``full``, ``swa``, ``mamba``; empty without a tree."""
        return components(self.scheduler.tree_cache)

    @cached_property
    def rows(self) -> set[int]:
        """The rows of the request-to-token table that requests may have: all but row 0."""
        return set(range(1, self.scheduler.req_to_token_pool.req_to_token.shape[0]))

    @property
    def num_rows(self) -> int:
        return self.scheduler.req_to_token_pool.size

    @property
    def has_tree(self) -> bool:
        return trees.tree_kind(self.scheduler.tree_cache) != "none"

    @property
    def unreadable_tree(self) -> str | None:
        """Why the tree cannot be walked; None when it can."""
        return readable(self.scheduler.tree_cache)

    @property
    def model(self) -> Any:
        """The model that the scheduler runs."""
        return self.scheduler.tp_worker.model_runner.model

    @property
    def lora(self) -> Any | None:
        """SGLang's ``LoRAManager``; None where no adapters are served."""
        return getattr(self.scheduler.tp_worker.model_runner, "lora_manager", None)

    def adapter_of(self, rid: str) -> str | None:
        """The adapter that a request was sent with; None is the base model."""
        return self._adapters.get(rid)

    @property
    def half(self) -> str | None:
        """``prefill`` or ``decode`` on a server of a disaggregated pair; None in the unified mode."""
        mode = self.scheduler.server_args.disaggregation_mode
        return None if mode == "null" else mode

    # -- per step ----------------------------------------------------------------------------------------------

    def begin_step(self, step: int) -> None:
        self.recorder.begin_step(step)
        self._proxy.taken.clear()
        self.batches = []
        self.launched = []

    def refresh(self, step: int) -> None:
        """Record what the step did; after this `now` is the state between the steps."""
        self.received = [Received(message) for message in self._proxy.taken]
        self._follow_sessions(step)
        for message in self.received:
            rid = message.rid
            if rid is not None and message.is_request:
                self.arrived.setdefault(rid, step)
                self._adapters.setdefault(rid, message.lora_id)
                turn = self._ledger.turns.get(rid)
                if turn is not None:
                    self.prompts.setdefault(rid, turn.prompt)
                elif message.session_params is None:
                    self.prompts.setdefault(rid, list(message.input_ids))
        self.now = Snapshot(self, step)
        self.places()  # from now on every request in one of these places is known

    def _follow_sessions(self, step: int) -> None:
        try:
            self._ledger.take(self.received, step, open_sessions(self.scheduler))
        except AttributeError as error:
            if self.missing.excuse(error) is None:
                raise
            self._ledger_lost = error

    @property
    def sessions(self) -> Ledger:
        """What clients know of sessions. Raises ``AttributeError`` once this could not be followed."""
        if self._ledger_lost is not None:
            lost = self._ledger_lost
            raise AttributeError(str(lost), name=lost.name, obj=lost.obj)
        return self._ledger

    def _output_of(self, rid: str) -> list[int]:
        return next((list(req.output_ids) for req in self.requests if req.rid == rid), [])

    def on_run_batch(self, batch: Any) -> None:
        launched = read_batch(batch, self._views(batch.reqs), self.chunked)
        self.batches.append((launched.mode, tuple(row.req.rid for row in launched.rows)))
        self.launched.append(launched)
        self.forward_steps += 1

    def _views(self, reqs: Iterable[Any]) -> list[Request]:
        """The views of SGLang's own request objects; each view is kept for the rest of the run."""
        return [self._requests.of(req) for req in reqs]

    @property
    def requests(self) -> list[Request]:
        """Every request ever seen, in order of first sight."""
        return self._requests.every()

    def places(self) -> list[tuple[str, list[Request]]]:
        """The queues and batches from which a request can go on, including those of a prefill or decode server."""
        return [(place, self._views(reqs)) for place, reqs in scheduler_state.places(self.scheduler)]

    def running_requests(self) -> set[Request]:
        """Requests that a batch or the chunked slot holds: their next token may come."""
        return {req for place, reqs in self.places() if place not in ("waiting", "grammar") for req in reqs}

    # -- the state between two steps ---------------------------------------------------------------------------

    @property
    def waiting(self) -> list[Request]:
        """Requests in the waiting queue, in its order."""
        return self._views(self.scheduler.waiting_queue)

    @property
    def running(self) -> list[Request]:
        """Requests of the running batch."""
        batch = self.scheduler.running_batch
        return self._views(batch.reqs) if batch is not None else []

    @property
    def chunked(self) -> Request | None:
        """The request of which the prompt is being prefilled in chunks."""
        req = self.scheduler.chunked_req
        return None if req is None else self._requests.of(req)

    @property
    def evictable_tokens(self) -> int:
        """Tokens of the tree that no lock protects; 0 without a tree."""
        return request_state.evictable_tokens(self.scheduler.tree_cache) if self.has_tree else 0

    @property
    def batch_is_full(self) -> bool:
        """SGLang's flag: no request is admitted until one leaves the running batch."""
        batch = self.scheduler.running_batch
        return batch is not None and bool(batch.batch_is_full)

    @property
    def open_sessions(self) -> list[str]:
        """Ids of the sessions that are open."""
        return list(open_sessions(self.scheduler))

    @property
    def sessions_hold_memory(self) -> bool:
        """Whether a streaming session holds KV that nothing can evict; where that is not told, whether any is open."""
        return self.missing.or_default(lambda: bool(self.now.session_slots), bool(self.open_sessions))

    @property
    def flush_deferred(self) -> bool:
        """Whether a flush with a time-out is deferred until the engine is idle; there is at most one."""
        return scheduler_state.flush_deferred(self.scheduler)

    @property
    def loading_back(self) -> bool:
        """Whether a hierarchical cache is loading nodes back from the host."""
        return bool(getattr(self.scheduler.tree_cache, "ongoing_load_back", None))

    @property
    def transfer_locks(self) -> list[tuple[Any, str]]:
        """Locks of copies between device and host: the node, and what holds the lock."""
        return list(request_state.transfer_locks(self.scheduler.tree_cache))

    @property
    def root_node_id(self) -> int:
        return root_node_id(self.scheduler.tree_cache)

    # -- SGLang's own checks and reports -----------------------------------------------------------------------

    def run_busy_check(self) -> None:
        """SGLang's pool accounting for a busy engine. Raises ``AssertionError`` or ``ValueError``."""
        self.scheduler.invariant_checker.self_check_during_busy()

    def run_tree_check(self) -> None:
        """The tree's own structure check. Raises ``AssertionError`` or ``ValueError``."""
        self.scheduler.tree_cache.sanity_check()

    def load_report(self) -> Any:
        """SGLang's load report: waiting and running requests, tokens in use."""
        return self.scheduler.load_inquirer.get_loads()

    # -- questions ---------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        return scheduler_state.is_paused(self.scheduler)

    @property
    def holding(self) -> bool:
        """Whether an exhauster holds anything."""
        return bool(self.context.held_slots or self.context.locked_handles)

    def stream_of(self, rid: str) -> Stream | None:
        return self.recorder.streams.get(rid)

    def answered(self, rid: str) -> bool:
        return self.recorder.answered(rid)

    @property
    def clients(self) -> Mapping[str, Any] | None:
        """What HTTP clients got, by request id; None on an engine without HTTP."""
        return self.context.http_responses

    @property
    def last_flush_ok(self) -> bool | None:
        """Whether the last answered flush succeeded; None when none was answered."""
        replies = [reply for _, reply in self.recorder.replies if reply.kind == FLUSH_REPLY]
        return bool(replies[-1].success) if replies else None

    def unanswered(self) -> list[str]:
        """Ids of the requests that arrived and are not answered yet."""
        return [rid for rid in self.arrived if not self.answered(rid)]

    def pages_of(self, slots: Iterable[int]) -> list[int]:
        """Page ids of slots, each page once, in order."""
        if self.page_size == 1:
            return list(slots)
        return list(dict.fromkeys(slot // self.page_size for slot in slots))
