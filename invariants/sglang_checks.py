"""SGLang's own checkers, as further invariants."""

from __future__ import annotations

import os

from sr_fuzz.invariants.base import Invariant, Problem

from sr_fuzz.view.view import SchedulerView


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:400] if text else type(error).__name__


class BusyMemoryCheck(Invariant):
    """SGLang's pool accounting and page check.

    Formula: available + evictable + protected + held by sessions + uncached == pool size, and no page of a live row
    is free.

    Source: ``SchedulerInvariantChecker.self_check_during_busy`` in ``managers/scheduler_components/
    invariant_checker.py``; in SGLang it runs at the end of each step that was not paused, when
    ``SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY`` is set, with ``SGLANG_CHECK_KV_PAGE_INVARIANTS`` for the pages.
    Covers: whatever that check covers.

    Known false alarms: it knows no exhauster, so it is left out while one holds pages. Its page check takes a whole row
    for owned, and where there is nothing but a sliding window what has left it is free: there only the accounting runs.
    """

    name = "sglang_busy_check"
    family = "sglang"

    def not_covered(self, view: SchedulerView) -> str | None:
        if not view.facts.has_busy_check:
            return "this SGLang has no busy memory check"
        if view.half is not None:
            return "SGLang does not run its busy memory check in a disaggregated half, whose queues it does not count"
        if view.facts.pp_size > 1:
            return "SGLang does not run its busy memory check with pipeline stages: it looks at one microbatch"
        if view.sees_window_only and not view.facts.busy_check_knows_prompts:
            return "SGLang's busy memory check takes a prompt that stays for one that has left the window"
        return None

    def check(self, view: SchedulerView) -> Problem | None:
        if view.paused or view.holding:
            return None
        os.environ["SGLANG_CHECK_KV_PAGE_INVARIANTS"] = str(not view.sees_window_only).lower()
        try:
            view.run_busy_check()
        except (AssertionError, ValueError) as error:
            return Problem("failed", f"SGLang's busy memory check: {_first_line(error)}")
        finally:
            del os.environ["SGLANG_CHECK_KV_PAGE_INVARIANTS"]
        return None


class TreeSanityCheck(Invariant):
    """The tree's own structure check.

    Formula: SGLang's: parents and children agree, each node is in the lists its state asks for, sizes add up.

    Source: ``sanity_check`` of the tree cache (``UnifiedTreeCore.sanity_check``, ``RadixCache.sanity_check``).
    Covers: trees that have one and need no idle engine for it.

    Known false alarms: a node that a hierarchical cache brings back from the host has both copies before it is entered
    among those that have, at the end of the copy (``finish_load_back``; SGLang itself runs the check when idle), so it
    is left out while such a copy is under way.
    """

    name = "sglang_tree_check"
    family = "sglang"

    def no_subject(self, view: SchedulerView) -> str | None:
        return None if view.has_tree else "there is no prefix tree"

    def not_covered(self, view: SchedulerView) -> str | None:
        if not view.facts.has_tree_check:
            return "this tree has no sanity check that runs between steps"
        return None

    def check(self, view: SchedulerView) -> Problem | None:
        if view.loading_back:
            return None
        try:
            view.run_tree_check()
        except (AssertionError, ValueError) as error:
            return Problem("failed", f"SGLang's tree sanity check: {_first_line(error)}")
        return None
