"""No request waits or is refused without cause."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, disaggregated, names, sessions_open

from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.view import SchedulerView, name_of

# One or two steps without an admission are normal: under overlap the result that frees a row is in flight.
PATIENCE_STEPS = 8


class Admission(Invariant):
    """Work conservation: while all requests fit at once, waiting requests are admitted.

    Formula: if the engine is not paused, no exhauster holds anything, and there are rows for all requests and room for
    all (below), at least one prefill is launched in eight consecutive steps in which a request waits. Room for all
    means: the sum over all unanswered requests of prompt and output limit rounded up to pages, two pages and two tokens
    each, is less than the pool, and their adapters fit into a batch.

    That is far on the safe side of what admission asks for. ``PrefillAdder`` admits the head of the queue if the part
    of its prompt that is not cached, its output limit and one page fit into what is free or evictable, less what is
    reserved for running requests (the rest of their output times ``new_token_ratio``, which is at most 1) and a page
    for each request admitted in the same step. Pages that are not evictable belong to an unanswered request, or are
    locked as its prefix, which is part of its prompt. ``add_one_req_ignore_eos`` (no tree) asks for one more token per
    request.

    Source: ``PrefillAdder.add_one_req``, ``add_one_req_ignore_eos``, ``_get_running_request_total_token_offset`` in
    ``managers/schedule_policy.py``; ``Scheduler._get_new_batch_prefill_raw``.
    Covers: one pool, one pipeline stage, no hierarchical cache, no speculation, no open session. A stop without any
    forward is checked by `Liveness`.

    Known false alarms: while ``batch_is_full`` is set no request is admitted until one leaves the running batch, by
    design, even if the request that did not fit was aborted meanwhile. Under mixed batches each decoding request takes
    a token of the chunk's budget, so that a large batch leaves none. ``prefill_decode_interval``, the delayers and
    ``SGLANG_TEST_RETRACT`` hold prefills back on purpose. A request that nearly fills the pool by itself never fits by
    such a sum.
    """

    name = "admission"
    family = "lifecycle"

    def __init__(self) -> None:
        self._steps = 0
        self._waited: set[Request] = set()

    def not_covered(self, view: SchedulerView) -> str | None:
        facts = view.facts
        if facts.pp_size > 1:
            return "each pipeline stage has a batch of its own"
        if facts.hybrid_window or facts.hybrid_states:
            return "more than one pool to fit into"
        if facts.speculative or facts.hierarchical_cache:
            return "speculation and load-back reserve more than the request itself"
        if facts.delays_prefills is not None:
            return f"{facts.delays_prefills} holds prefills back on purpose"
        return disaggregated(view)

    def check(self, view: SchedulerView) -> Problem | None:
        waiting = view.waiting
        before, self._waited = self._waited, set(waiting)
        prefilled = any(batch.mode in ("extend", "mixed") for batch in view.launched)
        # A request that waits now and waited at the end of the step before was passed over in this step.
        passed_over = [req for req in waiting if req in before]
        if prefilled or not passed_over or view.paused or view.holding or not self._room_for_all(view):
            self._steps = 0
            return None
        self._steps += 1
        if self._steps < PATIENCE_STEPS:
            return None
        return Problem(
            "waits_though_room",
            f"no request was admitted in {self._steps} steps although "
            f"{names([name_of(req.rid) for req in passed_over])} wait and all unanswered requests fit together "
            f"into the pool; {len(view.now.free_pages)} of {view.num_pages} pages and "
            f"{len(view.now.free_rows)} rows are free",
        )

    def _room_for_all(self, view: SchedulerView) -> bool:
        facts = view.facts
        if view.batch_is_full or sessions_open(view):
            return False
        unanswered = set(view.unanswered())
        reqs = [req for req in view.requests if req.rid in unanswered]
        if len(reqs) > min(view.num_rows, facts.max_running_requests):
            return False
        if view.lora is not None and len({req.lora_id for req in reqs}) > view.lora.max_loras_per_batch:
            return False
        chunk = facts.chunked_prefill_size
        if facts.mixed_chunk and chunk is not None and chunk - len(reqs) < view.page_size:
            return False
        return sum(self._need(req, view.page_size) for req in reqs) < view.num_pages * view.page_size

    @staticmethod
    def _need(req: Request, page: int) -> int:
        longest = len(req.origin_input_ids) + max(req.max_new_tokens, len(req.output_ids))
        return -(-longest // page) * page + 2 * page + 2
