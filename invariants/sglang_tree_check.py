"""SGLang's own structure check of the prefix tree."""

from __future__ import annotations

from sr_fuzz.invariants.base import Invariant, Problem, first_line

from sr_fuzz.view.view import SchedulerView


class TreeSanityCheck(Invariant):
    """The tree's own structure check passes.

    Formula, SGLang's own: parents and children agree, each node is in the lists that its state asks for, and sizes add
    up.

    Source: ``sanity_check`` of the tree cache (``UnifiedTreeCore.sanity_check``, ``RadixCache.sanity_check``).
    Covers: trees that have such a check and need no idle engine for it.

    Known false alarms: a node that a hierarchical cache loads back from the host has both copies before it is listed
    among the nodes that have, at the end of the copy (``finish_load_back``; SGLang itself runs the check when idle), so
    the check is left out while such a copy is under way.
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
            return Problem("failed", f"SGLang's tree sanity check: {first_line(error)}")
        return None
