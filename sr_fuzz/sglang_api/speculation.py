"""Facts about speculative decoding for the observer of a scheduler: a step may produce several tokens."""

from __future__ import annotations

from typing import Any


def tokens_per_step(scheduler: Any) -> int:
    """Return how many tokens one decode step may add to a request: one, or the number of nodes of a draft tree.

    All drafts below the newest known token may be right, and the model's own token follows the last of them.
    """
    if scheduler.spec_algorithm.is_none():
        return 1
    return int(scheduler.server_args.speculative_num_draft_tokens)
