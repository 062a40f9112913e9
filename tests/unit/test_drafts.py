"""Proposing drafts on a CPU: trees in SGLang's form, right and wrong often enough, and deterministic."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_fuzz.oracle.drafts import DraftCorpus, draft_tree, mask_of
from sr_fuzz.oracle.function import continuation
from sr_fuzz.script import VOCAB_SIZE

HISTORIES = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=40)
SIZES = st.integers(2, 12)
BREADTHS = st.integers(1, 4)


def right_drafts(history: list[int], tokens: list[int], parents: list[int]) -> int:
    """How many of the drafts a verification would accept."""
    node, accepted = 0, 0
    for token in islice(continuation(history), len(tokens)):
        node = next((child for child, parent in enumerate(parents) if parent == node and tokens[child] == token), -1)
        if node < 0:
            return accepted
        accepted += 1
    return accepted


@given(HISTORIES, SIZES, BREADTHS)
def test_a_tree_has_its_size_and_begins_with_the_newest_token(history, nodes, breadth):
    tokens, parents = draft_tree(history, nodes, breadth)
    assert len(tokens) == len(parents) == nodes
    assert tokens[0] == history[-1] and parents[0] == -1
    assert all(0 <= parent < node for node, parent in enumerate(parents) if node)
    assert all(0 <= token < VOCAB_SIZE for token in tokens)


@given(HISTORIES, SIZES)
def test_a_chain_is_a_chain_until_it_is_padded(history, nodes):
    tokens, parents = draft_tree(history, nodes, 1)
    drafts = [node for node in range(1, nodes) if tokens[node] != 0]
    assert [parents[node] for node in drafts] == [node - 1 for node in drafts]


@given(HISTORIES, SIZES, BREADTHS)
def test_siblings_differ(history, nodes, breadth):
    tokens, parents = draft_tree(history, nodes, breadth)
    drafts = [(parent, token) for token, parent in zip(tokens, parents) if token]
    assert len(set(drafts)) == len(drafts)


@pytest.mark.parametrize("breadth", [1, 2, 3])
def test_every_number_of_drafts_is_right_now_and_then(breadth):
    counts = Counter(
        right_drafts([family, at], *draft_tree([family, at], 4, breadth)) for family in range(40) for at in range(10)
    )
    possible = range(4) if breadth == 1 else range(3)
    assert all(counts[right] >= 20 for right in possible), counts


def test_the_right_draft_is_the_first_of_its_siblings_in_some_trees_and_not_in_others():
    places = set()
    for last in range(VOCAB_SIZE):
        history = [5, last]
        tokens, parents = draft_tree(history, 8, 2)
        siblings = [token for token, parent in zip(tokens, parents) if parent == 0 and token]
        right = next(continuation(history))
        if right in siblings and len(siblings) > 1:
            places.add(siblings.index(right))
    assert places == {0, 1}


def test_a_mask_holds_each_node_and_its_ancestors():
    assert mask_of([-1, 0, 0, 2, 3]) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 1, 1, 1],
    ]


def test_a_corpus_answers_for_a_batch_and_the_same_to_everybody():
    batch = [[3, 4, 5], [9], [3, 4, 5]]
    corpus, other = (DraftCorpus(max_bfs_breadth=2, draft_token_num=4, capacity=100) for _ in range(2))
    corpus.insert(batch)
    corpus.synchronize()
    tokens, mask = corpus.match_stateful([0, 1, 2], batch, [3, 1, 3])
    assert tokens.shape == (12,) and mask.shape == (48,) and tokens.dtype == mask.dtype == np.int64
    assert tokens[:4].tolist() == tokens[8:].tolist() and [tokens[0], tokens[4]] == [5, 9]
    again = other.match_stateful([7, 8, 9], batch, [3, 1, 3])
    assert np.array_equal(tokens, again[0]) and np.array_equal(mask, again[1])
