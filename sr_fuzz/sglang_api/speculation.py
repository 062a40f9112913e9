"""What speculation changes for who watches a scheduler: a step may bring several tokens."""

from __future__ import annotations

from typing import Any


def tokens_per_step(scheduler: Any) -> int:
    """How many tokens one decode step may add to a request: one, or as many as a tree of drafts has nodes.

    The drafts below the newest known token may all be right, and the model's own token comes after the last of them.
    """
    if scheduler.spec_algorithm.is_none():
        return 1
    return int(scheduler.server_args.speculative_num_draft_tokens)
