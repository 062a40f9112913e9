"""What proposes drafts on a CPU in place of SGLang's compiled n-gram corpus.

The corpus is compiled on the machine and has a thread of its own, which does not survive the fork of a process that
has it. It also learns too little here: the oracle's next token depends on the whole history, so an n-gram that was
seen before says nothing about what follows it now. This one knows the oracle and is wrong on purpose: how many drafts
of a tree are right, and where among their siblings they stand, follows from the history alone, so that every number of
accepted drafts comes up, and the same script has the same drafts in every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from sr_fuzz.oracle.function import FIRST_OUTPUT_TOKEN, continuation, digest_of
from sr_fuzz.script import VOCAB_SIZE

# What pads a tree that has too few nodes, as children of the root.
_PADDING = 0


class DraftCorpus:
    """Takes what SGLang asks of its corpus class. It learns nothing, so there is nothing to forget either."""

    def __init__(self, *, max_bfs_breadth: int, draft_token_num: int, **_settings: object) -> None:
        self._breadth = max_bfs_breadth
        self._nodes = draft_token_num

    def insert(self, batch_tokens: Sequence[Sequence[int]]) -> None:
        """Nothing: see above."""

    def synchronize(self) -> None:
        """Nothing is inserted in the background."""

    def reset(self) -> None:
        """Nothing was learned."""

    def erase_states(self, state_ids: Iterable[int]) -> None:
        """Nothing is kept of a request."""

    def match_stateful(
        self, state_ids: Sequence[int], batch_tokens: Sequence[Sequence[int]], total_lens: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Drafts after each history, node by node, flat; and who is whose ancestor, flat: int64.

        Shapes [requests * nodes] and [requests * nodes * nodes].
        """
        tokens, masks = [], []
        for history in batch_tokens:
            drafts, parents = draft_tree(history, self._nodes, self._breadth)
            tokens.append(drafts)
            masks.append(mask_of(parents))
        return np.array(tokens, dtype=np.int64).flatten(), np.array(masks, dtype=np.int64).flatten()


def draft_tree(history: Sequence[int], nodes: int, breadth: int) -> tuple[list[int], list[int]]:
    """Tokens and parents of a tree of drafts after ``history``; node 0 is its last token, its own parent -1.

    Along the oracle's continuation each node has up to ``breadth`` children, one of them right, until the right ones
    end, as the history's digest says.
    """
    choice = digest_of(history)
    right = choice % nodes
    tokens, parents, at = [history[-1]], [-1], 0
    for step, token in enumerate(islice(continuation(history), nodes)):
        choice = choice * 31 + token
        children = _children(token, choice, breadth, right=step < right)
        first = len(tokens)
        tokens += children
        parents += [at] * len(children)
        if len(tokens) >= nodes or step >= right:
            break
        at = first + children.index(token)
    missing = max(0, nodes - len(tokens))
    return (tokens + [_PADDING] * missing)[:nodes], (parents + [0] * missing)[:nodes]


def _children(token: int, choice: int, breadth: int, *, right: bool) -> list[int]:
    """Different drafts for the place of ``token``, which is among them where ``right``; sometimes fewer than could be.

    A wrong one is another token that the oracle could have answered, so that nothing but the history tells them apart.
    """
    count = 1 + choice % breadth
    span = VOCAB_SIZE - FIRST_OUTPUT_TOKEN
    start = choice // breadth % span
    others = [FIRST_OUTPUT_TOKEN + (start + step) % span for step in range(count + 1)]
    wrong = [other for other in others if other != token][:count]
    if right:
        wrong[choice // 7 % count] = token
    return wrong


def mask_of(parents: Sequence[int]) -> list[list[int]]:
    """For each node which nodes are itself or its ancestors, as 0 and 1."""
    rows: list[list[int]] = []
    for node, parent in enumerate(parents):
        row = list(rows[parent]) if parent >= 0 else [0] * len(parents)
        row[node] = 1
        rows.append(row)
    return rows
