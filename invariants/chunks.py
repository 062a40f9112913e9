"""The chunks in which a prompt is prefilled make it up exactly."""

from __future__ import annotations

from dataclasses import dataclass

from sr_fuzz.invariants.base import Invariant, Problem, disaggregated, names

from sr_fuzz.sglang_api.requests import Request
from sr_fuzz.view.batches import Launched, Row
from sr_fuzz.view.view import SchedulerView, name_of


@dataclass(slots=True)
class _Prefill:
    """Progress of one residency of a request in the pool, from its admission to its end or retraction."""

    residency: int
    covered: int
    complete: bool
    decodes: int = 0


class ChunkAccounting(Invariant):
    """Prefills tile the prompt, one chunked request at a time, and only what was launched is committed.

    Formula, for each residency of a request (admission to end or retraction), over the batches launched: the first
    prefill starts at a whole number of pages, and at 0 without a prefix tree; each further prefill starts where the
    last one ended; no prefill is empty or goes beyond the prompt and earlier output; no prefill follows a complete one,
    and no decode precedes the complete one. A batch holds at most one incomplete prefill, and the request of that
    prefill is the scheduler's ``chunked_req``. A first chunk ends on a page boundary. Between steps
    ``kv_committed_len`` is the end of the last prefill plus the decodes launched since: a parked chunk adds nothing.
    With speculation a decode commits the accepted tokens when its result is processed: once the request decodes, all
    its tokens but the newest are committed.

    Source: ``PrefillAdder.add_chunked_req``, ``_select_prefill_admission`` (the trunk of ``add_one_req``) in
    ``managers/schedule_policy.py``; ``Req.init_next_round_input``; ``kv_committed_len`` in ``alloc_for_extend`` and
    ``prepare_for_decode``, with speculation in ``_resolve_spec_v2_tokens``.
    Covers: every tree and page size; no diffusion models, no beams.

    Known false alarms: after a retraction the output so far is part of what is prefilled. A further chunk under mixed
    batches ends anywhere, since decoding requests take single tokens of its budget; so does, without a tree, a chunk of
    a request that ignores EOS (``add_one_req_ignore_eos``). A session's turn starts where the last turn ended.
    """

    name = "chunks"
    family = "lifecycle"

    def __init__(self) -> None:
        self._prefills: dict[Request, _Prefill] = {}

    def not_covered(self, view: SchedulerView) -> str | None:
        if view.facts.diffusion:
            return "a diffusion model computes a block again and again"
        return disaggregated(view)

    def check(self, view: SchedulerView) -> Problem | None:
        for batch in view.launched:
            problem = self._one_chunked(batch)
            if problem is not None:
                return problem
            for row in batch.rows:
                problem = self._decode(row) if row.decode else self._extend(view, row)
                if problem is not None:
                    return problem
        return self._committed(view)

    @staticmethod
    def _one_chunked(batch: Launched) -> Problem | None:
        partial = [row for row in batch.rows if row.is_partial()]
        if len(partial) > 1:
            shown = [f"{name_of(row.req.rid)} up to {row.end} of {row.known}" for row in partial]
            return Problem("two_chunked", f"one batch prefills {len(partial)} requests in part: {names(shown)}")
        if partial and partial[0].req is not batch.chunked:
            kept = name_of(batch.chunked.rid) if batch.chunked is not None else "none"
            row = partial[0]
            return Problem(
                "rest_forgotten",
                f"{name_of(row.req.rid)} was prefilled up to {row.end} of {row.known}, but the scheduler's chunked "
                f"request is {kept}",
            )
        return None

    def _extend(self, view: SchedulerView, row: Row) -> Problem | None:
        who = name_of(row.req.rid)
        if not row.start < row.end <= row.known:
            return Problem("wrong_range", f"{who}: a prefill covers [{row.start}, {row.end}) of {row.known} tokens")
        before = self._prefills.get(row.req)
        if before is None or before.residency != row.residency:
            problem = self._first(view, row)
        elif before.complete:
            problem = Problem("prefilled_again", f"{who} was prefilled as a whole, now [{row.start}, {row.end}) again")
        elif row.start != before.covered:
            rule = "chunk_skipped" if row.start > before.covered else "chunk_repeated"
            problem = Problem(rule, f"{who}: the last chunk ended at {before.covered}, the next starts at {row.start}")
        else:
            problem = None
        self._prefills[row.req] = _Prefill(row.residency, row.end, not row.is_partial())
        return problem

    @staticmethod
    def _first(view: SchedulerView, row: Row) -> Problem | None:
        who, page = name_of(row.req.rid), view.page_size
        if row.req.rid in view.sessions.turns:
            return None
        if not view.has_tree and row.start:
            return Problem("prefix_from_nowhere", f"{who} skips its first {row.start} tokens, there is no prefix tree")
        if row.start % page:
            return Problem("prefix_not_aligned", f"{who} starts at {row.start}, pages have {page} tokens")
        if row.is_partial() and view.has_tree and row.end % page:
            return Problem("chunk_not_aligned", f"{who}: its first chunk ends at {row.end}, pages have {page} tokens")
        return None

    def _decode(self, row: Row) -> Problem | None:
        prefill = self._prefills.get(row.req)
        if prefill is None or prefill.residency != row.residency or not prefill.complete:
            done = prefill.covered if prefill is not None and prefill.residency == row.residency else 0
            return Problem(
                "decoded_too_early",
                f"{name_of(row.req.rid)} decodes, but only {done} of its {row.known} tokens are prefilled",
            )
        prefill.decodes += 1
        return None

    def _committed(self, view: SchedulerView) -> Problem | None:
        for req in view.requests:
            prefill = self._prefills.get(req)
            if prefill is None or prefill.residency != req.retraction_count or req.kv is None:
                continue
            committed, expected = req.committed_len, prefill.covered + prefill.decodes
            if prefill.decodes and view.facts.speculative:
                expected = len(req.origin_input_ids) + len(req.output_ids) - 1
            if committed != expected:
                return Problem(
                    "wrong_committed",
                    f"{name_of(req.rid)}: {committed} tokens count as committed, {expected} should; prefilled up to "
                    f"{prefill.covered} and decoded {prefill.decodes} times since",
                )
        return None
