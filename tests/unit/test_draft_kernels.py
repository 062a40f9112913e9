"""The kernels for drafts, compared with the simplest implementation of what they compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr_fuzz.cpu import draft_kernels
from sr_fuzz.oracle.draft_trees import ancestors
from sr_fuzz.oracle.drafts import mask_of

NODES = 6


@st.composite
def trees(draw) -> list[int]:
    """Parents of the nodes of a tree; node 0 is the root."""
    return [-1, *(draw(st.integers(0, node - 1)) for node in range(1, NODES))]


def reconstruct(parents_of: list[list[int]], lengths: list[int]) -> tuple[list[int], torch.Tensor, ...]:
    count = len(parents_of)
    masks = torch.tensor([mask_of(parents) for parents in parents_of], dtype=torch.bool)
    positions = torch.full((count * NODES,), -7)
    index, child, sibling = (torch.full((count, NODES), -7) for _ in range(3))
    draft_kernels.reconstruct_indices_from_tree_mask(
        masks.flatten(), torch.tensor(lengths), positions, index, child, sibling, count, NODES
    )
    return positions.tolist(), index, child, sibling


def depth(parents: list[int], node: int) -> int:
    return 0 if node == 0 else 1 + depth(parents, parents[node])


def children(parents: list[int], node: int) -> list[int]:
    return [child for child, parent in enumerate(parents) if parent == node]


@given(st.lists(trees(), min_size=1, max_size=3))
def test_links_and_positions_are_those_of_the_trees(parents_of):
    lengths = [10 * (at + 1) for at in range(len(parents_of))]
    positions, index, child, sibling = reconstruct(parents_of, lengths)
    assert index.flatten().tolist() == list(range(len(parents_of) * NODES))
    for at, parents in enumerate(parents_of):
        assert positions[at * NODES : (at + 1) * NODES] == [lengths[at] + depth(parents, n) for n in range(NODES)]
        for node in range(NODES):
            assert child[at, node] == next(iter(children(parents, node)), -1)
            younger = [other for other in range(node + 1, NODES) if node and parents[other] == parents[node]]
            assert sibling[at, node] == next(iter(younger), -1)


def accepted(parents: list[int], tokens: list[int], wanted: list[int], most: int) -> list[int]:
    path = [0]
    while len(path) < most:
        right = [child for child in children(parents, path[-1]) if tokens[child] == wanted[path[-1]]]
        if not right:
            break
        path.append(right[0])
    return path


@given(st.data(), st.integers(1, 3), st.integers(2, NODES))
def test_the_path_that_the_model_confirms_is_accepted(data, count, most):
    parents_of = [data.draw(trees()) for _ in range(count)]
    # Few different tokens, so that many drafts are right.
    some = st.lists(st.integers(0, 2), min_size=NODES, max_size=NODES)
    tokens, wanted = ([data.draw(some) for _ in range(count)] for _ in range(2))
    _, index, child, sibling = reconstruct(parents_of, [5] * count)
    predicts = torch.zeros(count * NODES, dtype=torch.int32)
    accept_index = torch.full((count, most), -1, dtype=torch.int32)
    accept_num = torch.full((count,), -7, dtype=torch.int32)
    draft_kernels.verify_tree_greedy(
        predicts, accept_index, accept_num, torch.tensor(tokens), index, child, sibling, torch.tensor(wanted)
    )
    for at in range(count):
        path = accepted(parents_of[at], tokens[at], wanted[at], most)
        assert accept_index[at].tolist() == [at * NODES + n for n in path] + [-1] * (most - len(path))
        assert accept_num[at] == len(path) - 1
        assert [int(predicts[at * NODES + node]) for node in path] == [wanted[at][node] for node in path]


def test_slots_are_packed_and_unpacked_request_by_request():
    table = torch.arange(40, dtype=torch.int32).view(4, 10)
    out = torch.full((6,), -7)
    rows, start, end = torch.tensor([2, 0]), torch.tensor([1, 4]), torch.tensor([4, 6])
    draft_kernels.assign_extend_cache_locs(rows, table, start, end, out, 10)
    assert out.tolist() == [21, 22, 23, 4, 5, -7]
    empty = torch.zeros_like(table)
    draft_kernels.assign_req_to_token_pool(rows, empty, start, end, out[:5], 10)
    assert empty[2].tolist() == [0, 21, 22, 23, 0, 0, 0, 0, 0, 0]
    assert empty[0].tolist() == [0, 0, 0, 0, 4, 5, 0, 0, 0, 0]
    assert not empty[[1, 3]].any()


def test_slots_of_accepted_rows_come_first():
    out = torch.zeros(6, dtype=torch.int64)
    accept = torch.tensor([[0, 2, -1], [3, -1, -1]])
    draft_kernels.fill_accept_out_cache_loc(accept, torch.tensor([50, 51, 52, 53, 54, 55]), out)
    assert out.tolist() == [50, 52, 53, 0, 0, 0]


def test_moving_reads_everything_before_it_writes():
    keys, values = torch.arange(12.0).view(6, 2), torch.arange(18.0).view(6, 3)
    pointers = torch.tensor([keys.data_ptr(), values.data_ptr()])
    strides = torch.tensor([2 * 4, 3 * 4])
    draft_kernels.copy_all_layer_kv_cache(pointers, strides, torch.tensor([1, 2]), torch.tensor([2, 5]))
    assert keys[:, 0].tolist() == [0, 4, 10, 6, 8, 10]
    assert values[:, 0].tolist() == [0, 6, 15, 9, 12, 15]


class _Batch:
    """The parts of SGLang's ``ForwardBatch`` that `ancestors` reads."""

    def __init__(self, mask: torch.Tensor, lengths: list[int], drafts: int) -> None:
        self.seq_lens = torch.tensor(lengths)
        self.spec_info = self
        self.custom_mask, self.draft_token_num = mask, drafts


@pytest.mark.parametrize("whole", [False, True], ids=["drafts alone", "history and drafts"])
def test_masks_of_both_forms_tell_the_same(whole):
    first, second = torch.tensor(mask_of([-1, 0, 0])).bool(), torch.tensor(mask_of([-1, 0, 1])).bool()
    parts = [first, second]
    if whole:
        parts = [torch.cat((torch.ones(3, n).bool(), part), dim=1) for n, part in zip((4, 2), parts)]
    found = ancestors(_Batch(torch.cat([part.flatten() for part in parts]), [4, 2], 3))
    assert [part.tolist() for part in found] == [first.tolist(), second.tolist()]
