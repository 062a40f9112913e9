"""Counts, from the view, what a run has reached: the states of the scheduler that a script has really brought about.

The kinds that are counted are named in `sr_fuzz.play.reach_kinds`. Everything is read once a step or when a batch is
launched; nothing is asked of SGLang that the view does not ask anyway, so that counting costs little.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from sr_fuzz.play import reach_drafts
from sr_fuzz.script import EOS_TOKEN_ID, Abort, AbortAll, Action, EvictRadix, Pause, StartReq
from sr_fuzz.sglang_api.missing import ReadErrors
from sr_fuzz.sglang_api.outputs import FLUSH_REPLY
from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.batches import Launched, Row
from sr_fuzz.view.view import SchedulerView

# SGLang's own switch, which retracts every few decodes for no reason.
_TEST_RETRACT = os.environ.get("SGLANG_TEST_RETRACT", "").lower() in ("1", "true")

# Messages of FINISH_ABORT and AbortReq without a reason of SGLang's own.
_BY_CLIENT = ("", "Aborted", "Aborted by AbortReq.")


GROUPS = {
    "where requests are": ("abort.", "pause."),
    "prefills": ("cache.", "chunk."),
    "retractions": ("retract.",),
    "tree nodes": ("tree.",),
    "memory and queues": ("max.", "step."),
    "drafts": ("draft.",),
    "how requests end": ("finish.", "refused."),
}
"""Beginnings of the kinds that are counted together, and not at all where this SGLang does not tell them."""


class Reach:
    """Counters of one run. The monitor calls it for steps and batches, the interpreter for what it plays."""

    def __init__(self, view: SchedulerView) -> None:
        self._view = view
        self._counts: Counter[str] = Counter()
        self._most: dict[str, int] = {}
        self._sent: set[str] = set()
        self._retractions: dict[Request, int] = {}
        self._chunks: dict[Request, int] = {}
        """Number of chunks launched so far of each prompt that is being prefilled."""
        self._drafts = reach_drafts.DraftCounts()
        self._read_before: dict[str, int] = {}
        self._nodes: set[int] = set()
        self._script_evicts = False
        self._replies = 0
        self._ended = False
        self.not_counted: dict[str, str] = {}
        """Counts that are left out because this SGLang does not tell them, with what is missing."""

    @property
    def counts(self) -> dict[str, int]:
        """Counts by kind; a kind that never occurred is missing."""
        counts = {kind: count for kind, count in self._counts.items() if count}
        return counts | {f"max.{name}": most for name, most in self._most.items() if most}

    # -- the interpreter's side --------------------------------------------------------------------------------

    def note_action(self, action: Action, rid: str = "") -> None:
        """Count an action that is about to be played, and the state it meets; ``rid`` is the request that it names."""
        self._counts[f"action.{action.__struct_config__.tag}"] += 1
        if isinstance(action, StartReq):
            self._sent.add(rid)
        elif isinstance(action, EvictRadix):
            self._script_evicts = True
        else:
            self._guarded("where requests are", lambda: self._note_places(action, rid))

    def _note_places(self, action: Action, rid: str) -> None:
        if isinstance(action, Abort):
            self._counts[f"abort.{self._place(rid)}"] += 1
        elif isinstance(action, AbortAll):
            for unanswered in self._view.unanswered():
                self._counts[f"abort.{self._place(unanswered)}"] += 1
        elif isinstance(action, Pause):
            self._counts[f"pause.{action.mode}"] += 1
            met = {self._place(unanswered) for unanswered in self._view.unanswered()} or {"idle"}
            self._counts.update(f"pause.at_{place}" for place in met)

    def note_stage(self, stage: str, *, reached: bool) -> None:
        """Count how a `StepUntil` ended."""
        self._counts[f"stage.{stage}" if reached else f"stage.{stage}.missed"] += 1

    def note_history(self, rid: str, prompt_len: int) -> None:
        """Note that the prompt of ``rid`` goes on after ``prompt_len`` tokens with the output of another request."""
        self._read_before[rid] = prompt_len

    def end_of_script(self) -> None:
        """Note that the epilogue follows: its idle steps and its flush are not counted as the script's."""
        self._ended = True

    def _place(self, rid: str) -> str:
        """One word for where a request is at the head of this step."""
        view = self._view
        if view.answered(rid):
            return "finished"
        if view.chunked is not None and view.chunked.rid == rid:
            return "chunked"
        for req in view.waiting:
            if req.rid == rid:
                return "retracted" if req.retraction_count else "waiting"
        places = {place for place, reqs in view.places() for req in reqs if req.rid == rid}
        if "running" in places:
            return "running"
        return "in_flight" if places else "arriving" if rid in self._sent else "unknown"

    # -- the monitor's side ------------------------------------------------------------------------------------

    def on_run_batch(self, batch: Launched) -> None:
        """Count a batch that is about to run."""
        self._counts[f"batch.{batch.mode}"] += 1
        if batch.chunked is not None and not any(row.req is batch.chunked for row in batch.rows):
            self._counts["chunk.parked"] += 1
        for row in batch.rows:
            if not row.decode:
                self._guarded("prefills", functools.partial(self._prefill, row, middle=row.req is batch.chunked))

    def _prefill(self, row: Row, *, middle: bool) -> None:
        done = self._chunks.pop(row.req, 0)
        if done == 0 and row.start > 0:
            self._counts["cache.hits"] += 1
            self._counts["cache.tokens"] += row.start
            self._counts["cache.retracted"] += row.residency > 0
            self._counts["cache.outputs"] += row.start > self._read_before.get(row.req.rid, row.start)
        if middle:
            self._counts["chunk.middle"] += 1
            self._counts["chunk.prompts"] += done == 0
            self._chunks[row.req] = done + 1
        if done:
            self._at_least("chunks", done + 1)

    def _guarded(self, what: str, count: Callable[[], None]) -> None:
        """Call ``count``; once this SGLang turns out not to tell ``what``, it is not counted any more."""
        if what in self.not_counted:
            return
        try:
            count()
        except ReadErrors as error:
            reason = self._view.missing.excuse(error)
            if reason is None:
                raise
            self.not_counted[what] = reason

    def end_step(self) -> None:
        """Count what a step did; the view is already the one after the step."""
        self._guarded("retractions", self._count_retractions)
        self._guarded("tree nodes", self._count_nodes)
        self._guarded("memory and queues", self._count_sizes)
        self._count_flushes()
        self._guarded("drafts", self._count_drafts)
        for rid, delta in self._view.recorder.sent_in_step:
            if delta.aborted or delta.finish is not None:
                self._guarded("how requests end", functools.partial(self._count_finish, rid, delta))

    def _count_retractions(self) -> None:
        for req in self._view.requests:
            times = req.retraction_count
            if times and times > self._retractions.get(req, 0):
                self._retractions[req] = times
                self._chunks.pop(req, None)
                self._counts[f"retract.{self._cause()}"] += 1

    def _cause(self) -> str:
        """Why requests were retracted in this step.

        A pause retracts when its message is handled; a preemption belongs to the prefill that it makes room for; memory
        runs out before a decode.
        """
        view = self._view
        if any(message.retracts for message in view.received):
            return "pause"
        if _TEST_RETRACT:
            return "test"
        prefill = any(mode != "decode" for mode, _ in view.batches)
        return "preempt" if prefill and view.facts.priority_scheduling else "memory"

    def _count_nodes(self) -> None:
        view = self._view
        if not view.has_tree or view.unreadable_tree is not None:
            return
        nodes, before = view.now.nodes, self._nodes
        self._nodes = {node.id for node in nodes}
        gone = len(before - self._nodes)
        flushed = gone and any(message.call == "flush_cache" for message in view.received)
        if gone and not flushed and not self._script_evicts:
            self._counts["tree.evict"] += gone
        self._script_evicts = False
        if len(self._nodes) + gone > len(before):
            # A split makes a new node of the upper half, which is the parent of the node that was there.
            parents = {node.parent.id for node in nodes if node.parent is not None and node.id in before}
            self._counts["tree.split"] += len(parents - before)

    def _count_sizes(self) -> None:
        view = self._view
        waiting, running = len(view.waiting), len(view.running)
        self._at_least("waiting", waiting)
        self._at_least("running", running)
        free = len(view.now.free_pages) * view.page_size + view.evictable_tokens
        self._at_least("pool_percent", 100 - 100 * free // max(1, view.num_pages * view.page_size))
        if view.paused:
            self._counts["step.paused"] += 1
        elif waiting:
            self._counts["step.memory_full" if view.now.free_rows else "step.rows_full"] += 1
        elif not running and not view.batches and not self._ended:
            self._counts["step.idle"] += 1

    def _count_flushes(self) -> None:
        replies = self._view.recorder.replies
        for _, reply in replies[self._replies :]:
            if reply.kind == FLUSH_REPLY and self._flushes_to_come:
                self._counts["flush.accepted" if reply.success else "flush.refused"] += 1
        self._replies = len(replies)

    def _count_drafts(self) -> None:
        for accepted in self._drafts.new(self._view.requests):
            reach_drafts.add(self._counts, accepted)
            self._at_least("drafts", accepted)

    @property
    def _flushes_to_come(self) -> int:
        """How many of the script's own flushes are unanswered; that of the epilogue comes after them."""
        counts = self._counts
        return counts["action.flush_cache"] - counts["flush.accepted"] - counts["flush.refused"]

    def _count_finish(self, rid: str, delta: Any) -> None:
        finish = delta.finish or {}
        kind = finish.get("type")
        if kind == "stop":
            self._counts["finish.eos" if finish.get("matched") == EOS_TOKEN_ID else "finish.stop"] += 1
        elif kind != "abort":
            self._counts[f"finish.{kind}"] += 1
        elif (finish.get("message") or "") in _BY_CLIENT:
            self._counts["finish.abort"] += 1
        else:
            # SGLang's reasons have status codes: 400 for what it refuses, 503 for a full queue, 500 for lack of memory.
            code = int(finish.get("status_code") or 0)
            named = {400: "refused.invalid", 503: "refused.queue_full", 500: "finish.memory"}
            self._counts[named.get(code, "finish.abort")] += 1

    def _at_least(self, name: str, value: int) -> None:
        if value > self._most.get(name, 0):
            self._most[name] = value
