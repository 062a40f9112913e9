"""A corpus that proposes drafts on a CPU, in place of SGLang's compiled n-gram corpus.

SGLang's corpus is compiled on the machine and has its own thread, which does not survive a fork of the process. It also
learns too little here: the oracle's next token depends on the whole history, so an n-gram that was seen before does not
predict the next token. This corpus uses the oracle and makes wrong proposals on purpose. How many drafts of a tree are
right, and where they are among their siblings, is a function of the history alone, so every number of accepted drafts
occurs, and the same script has the same drafts in every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from sr_fuzz.oracle.function import FIRST_OUTPUT_TOKEN, continuation, digest_of
from sr_fuzz.script import VOCAB_SIZE

# Token of the children of the root that pad a tree with too few nodes.
_PADDING = 0


class DraftCorpus:
    """Has the interface of SGLang's corpus class. It learns nothing, so its methods that change state do nothing."""

    def __init__(self, *, max_bfs_breadth: int, draft_token_num: int, **_settings: object) -> None:
        self._breadth = max_bfs_breadth
        self._nodes = draft_token_num

    def insert(self, batch_tokens: Sequence[Sequence[int]]) -> None:
        """Do nothing: the corpus does not learn."""

    def synchronize(self) -> None:
        """Do nothing: there are no insertions in the background."""

    def reset(self) -> None:
        """Do nothing: nothing was learned."""

    def erase_states(self, state_ids: Iterable[int]) -> None:
        """Do nothing: there is no state of requests."""

    def match_stateful(
        self, state_ids: Sequence[int], batch_tokens: Sequence[Sequence[int]], total_lens: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the drafts after each history, by node, flat; and the ancestor mask, flat: both int64.

        Shapes [requests * nodes] and [requests * nodes * nodes].
        """
        tokens, masks = [], []
        for history in batch_tokens:
            drafts, parents = draft_tree(history, self._nodes, self._breadth)
            tokens.append(drafts)
            masks.append(mask_of(parents))
        return np.array(tokens, dtype=np.int64).flatten(), np.array(masks, dtype=np.int64).flatten()


def draft_tree(history: Sequence[int], nodes: int, breadth: int) -> tuple[list[int], list[int]]:
    """Return the tokens and parents of a draft tree after ``history``; node 0 is its last token, with parent -1.

    Along the oracle's continuation each node has up to ``breadth`` children, one of which is right. The history's
    digest decides where the right ones end.
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
    """Return different drafts for the position of ``token``, including it if ``right``; sometimes fewer than possible.

    A wrong draft is another token that the oracle could generate, so that only the history tells them apart.
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
    """Return the ancestor mask: for each node, which nodes are itself or its ancestors, as 0 and 1."""
    rows: list[list[int]] = []
    for node, parent in enumerate(parents):
        row = list(rows[parent]) if parent >= 0 else [0] * len(parents)
        row[node] = 1
        rows.append(row)
    return rows
