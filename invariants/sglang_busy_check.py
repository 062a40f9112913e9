"""SGLang's own accounting of the pools, run between steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sr_fuzz.invariants.base import Invariant, Problem, first_line

from sr_fuzz.view.view import SchedulerView

# SGLang reads this variable at each check.
_PAGES = "SGLANG_CHECK_KV_PAGE_INVARIANTS"


@contextmanager
def _page_check(wanted: bool) -> Iterator[None]:
    """Set whether SGLang's check looks at pages too; afterwards restore the user's setting, or its absence."""
    users = os.environ.get(_PAGES)
    os.environ[_PAGES] = str(wanted).lower()
    try:
        yield
    finally:
        os.environ.pop(_PAGES)
        if users is not None:
            os.environ[_PAGES] = users


class BusyMemoryCheck(Invariant):
    """SGLang's own pool accounting and page check pass.

    Formula: available + evictable + protected + held by sessions + uncached == pool size, and no page of a live row is
    free.

    Source: ``SchedulerInvariantChecker.self_check_during_busy`` in
    ``managers/scheduler_components/invariant_checker.py``; in SGLang it runs at the end of each step that was not
    paused, when ``SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY`` is set, with ``SGLANG_CHECK_KV_PAGE_INVARIANTS`` for the
    pages.
    Covers: whatever that check covers.

    Known false alarms: the check does not know exhausters, so it is left out while one holds pages. Its page check
    takes a whole row as owned, but where the window's pool is the only one, pages that left the window are free: there
    only the accounting runs.
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
        try:
            with _page_check(not view.sees_window_only):
                view.run_busy_check()
        except (AssertionError, ValueError) as error:
            return Problem("failed", f"SGLang's busy memory check: {first_line(error)}")
        return None
