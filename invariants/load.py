"""The load that the engine reports is what its queues and its memory hold."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, disaggregated, sessions_open

from sr_fuzz.view.view import SchedulerView


class LoadCounters(Invariant):
    """The load report agrees with the queues and the pool.

    Formula: in ``get_loads()``, ``num_waiting_reqs`` is the length of the waiting queue and ``num_running_reqs`` that
    of the running batch; ``num_used_tokens`` is the pages of KV-holding requests (their own part) and of an exhauster,
    in tokens, plus the tokens of locked tree nodes; ``num_total_tokens`` is that plus prompt and output of the waiting
    requests; ``token_usage`` is the used part of the pool, to four places.

    Source: ``SchedulerLoadInquirer.get_loads`` (behind ``/v1/loads``, and the snapshot by which data-parallel ranks are
    balanced), which relies on the counters that allocator and tree maintain: ``available_size``, ``evictable_size``.
    Covers: one pool for all layers on the device, a tree that can be walked or none, one pipeline stage, no open
    session (which holds memory between its turns).

    Known false alarms: the running batch holds finished requests until the next step filters them out, so
    ``num_running_reqs`` is compared with the batch itself, not with the unanswered requests.
    """

    name = "load"
    family = "memory"

    def not_covered(self, view: SchedulerView) -> str | None:
        if not view.facts.has_load_report:
            return "this SGLang has no load report that can be asked for between steps"
        if view.has_window_pool or view.facts.hybrid_states:
            return "more than one pool"
        if view.facts.pp_size > 1:
            return "each pipeline stage has a batch of its own"
        if view.facts.hierarchical_cache:
            return "nodes whose KV has left the device count elsewhere"
        return disaggregated(view) or view.unreadable_tree

    def check(self, view: SchedulerView) -> Problem | None:
        if sessions_open(view):
            return None
        load = view.load_report()
        waiting = view.waiting
        used = self._used_tokens(view)
        expected = {
            "num_waiting_reqs": len(waiting),
            "num_running_reqs": len(view.running),
            "num_used_tokens": used,
            "num_total_tokens": used + sum(len(req.origin_input_ids) + len(req.output_ids) for req in waiting),
            "token_usage": round(used / (view.num_pages * view.page_size), 4),
        }
        for name, value in expected.items():
            reported = getattr(load, name)
            if reported != value:
                return Problem(f"wrong_{name}", f"the load report says {name}={reported}, it is {value}")
        return None

    @staticmethod
    def _used_tokens(view: SchedulerView) -> int:
        only = view.sees_window_only
        owned = [holder.own_in_window() if only else holder.own for holder in view.now.holders]
        pages = sum(len(view.pages_of(slots)) for slots in owned) + len(view.now.held_pages)
        locked = sum(len(node.slots) for node in view.now.nodes if node.lock_ref)
        return pages * view.page_size + locked
