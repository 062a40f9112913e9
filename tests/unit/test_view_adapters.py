"""The view's adapters read the same facts from every allocator and tree layout of the supported releases."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sr_fuzz.sglang_api.allocators import free_pages, full_pool, only_window, two_pools, window_pool
from sr_fuzz.sglang_api.request_state import KvState
from sr_fuzz.sglang_api.trees import locked_slots, read_tree, readable, tree_slots
from sr_fuzz.view.snapshot import HolderView


def _ids(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def _allocator(*, page_size: int = 1, free: torch.Tensor = _ids(4, 2), **fields) -> SimpleNamespace:
    fields = {"release_pages": _ids(), "free_group": None, **fields}
    return SimpleNamespace(page_size=page_size, free_pages=free, **fields)


# -- allocators ------------------------------------------------------------------------------------------------


def test_free_pages_come_in_list_order_with_those_to_be_sorted_in_later():
    assert free_pages(_allocator(release_pages=_ids(9, 7))) == [4, 2, 9, 7]


def test_a_page_freed_twice_is_listed_twice():
    assert free_pages(_allocator(release_pages=_ids(2))) == [4, 2, 2]


def test_staged_pages_count_where_a_release_stages_them():
    # Such a release has the older attribute too, and leaves it empty.
    allocator = _allocator(page_size=4, release_pages=None, staged_pages=[_ids(9), _ids(7, 5)])
    assert free_pages(allocator) == [4, 2, 9, 7, 5]


def test_an_open_free_group_counts():
    assert free_pages(_allocator(free_group=[_ids(8), _ids(6, 8)])) == [4, 2, 8, 6, 8]
    open_group = _allocator(free_group=[_ids(8)], is_not_in_free_group=False)
    assert free_pages(open_group) == [4, 2, 8]


def test_a_group_of_slots_counts_in_pages_each_once():
    assert free_pages(_allocator(page_size=4, free_group=[_ids(20, 21, 22), _ids(23, 36)])) == [4, 2, 5, 9]


@pytest.mark.parametrize(
    "field", [{"free_page_reps_group": [_ids(20), _ids(36)]}, {"free_page_ids_group": [_ids(5, 9)]}]
)
def test_whole_pages_of_a_group_count(field):
    assert free_pages(_allocator(page_size=4, free_group=[], **field)) == [4, 2, 5, 9]


def test_the_list_that_an_ended_group_leaves_behind_does_not_count():
    allocator = _allocator(free_group=[_ids(8)], is_not_in_free_group=True)
    assert free_pages(allocator) == [4, 2]


# -- trees -----------------------------------------------------------------------------------------------------


def _legacy_node(node_id, tokens, slots, lock_ref=0, children=()):
    """A node of ``RadixCache``."""
    return SimpleNamespace(
        id=node_id,
        key=SimpleNamespace(token_ids=tokens),
        value=None if slots is None else _ids(*slots),
        lock_ref=lock_ref,
        children={child.id: child for child in children},
    )


def _unified_node(node_id, tokens, slots, lock_ref=0, children=()):
    """A node of the unified tree's Python core."""
    full = SimpleNamespace(value=None if slots is None else _ids(*slots), lock_ref=lock_ref)
    return SimpleNamespace(
        id=node_id,
        key=SimpleNamespace(raw_token_ids=lambda: tokens),
        component_data=[full, SimpleNamespace(value=None, lock_ref=99)],
        children={child.id: child for child in children},
    )


def _legacy_tree(root):
    return SimpleNamespace(root_node=root, disable=False)


def _unified_tree(root):
    return SimpleNamespace(tree_core=SimpleNamespace(root_node=root), root_node=root, disable=False)


@pytest.mark.parametrize(("node", "tree"), [(_legacy_node, _legacy_tree), (_unified_node, _unified_tree)])
def test_a_tree_is_read_with_places_slots_and_locks(node, tree):
    leaf = node(3, [7, 8, 9], [13, 14, 15], lock_ref=1)
    gone = node(4, [6], None)
    branch = node(2, [5, 6], [11, 12], lock_ref=2, children=[leaf, gone])
    cache = tree(node(1, [], [], lock_ref=1, children=[branch]))
    assert readable(cache) is None
    nodes = {view.id: view for view in read_tree(cache)}
    assert set(nodes) == {2, 3, 4}, "the root is left out"
    read = {i: (view.start, view.tokens, view.slots, view.lock_ref) for i, view in nodes.items()}
    assert read == {2: (0, [5, 6], [11, 12], 2), 3: (2, [7, 8, 9], [13, 14, 15], 1), 4: (2, [6], [], 0)}
    assert nodes[3].parent is nodes[2] and nodes[2].parent is None


@pytest.mark.parametrize(
    "cache",
    [
        SimpleNamespace(disable=True),
        SimpleNamespace(disable=True, root_node=_legacy_node(1, [], [], children=[_legacy_node(2, [5], [11])])),
        SimpleNamespace(),
    ],
    ids=["chunk cache", "unified tree switched off", "no tree at all"],
)
def test_without_a_tree_there_are_no_nodes(cache):
    assert read_tree(cache) == []
    assert readable(cache) is None


class RustCore:
    """The information that the Rust core gives about itself."""

    @property
    def root_node(self):
        raise NotImplementedError

    def all_values_flatten(self):
        return _ids(11, 12, 13, 14)

    def walk_for_kv_canary(self, unlocked_only, swa_resident_only):
        assert unlocked_only
        return SimpleNamespace(slot_indices=[13, 14])


def test_of_a_rust_core_only_slots_are_known():
    cache = SimpleNamespace(tree_core=RustCore(), disable=False)
    assert readable(cache) == "the Rust core keeps its nodes to itself"
    assert read_tree(cache) == []
    assert sorted(tree_slots(cache)) == [11, 12, 13, 14]
    assert locked_slots(cache) == {11, 12}


# -- hybrid caches ---------------------------------------------------------------------------------------------


def test_a_pair_of_pools_is_told_from_a_window_alone():
    full, window = _allocator(), _allocator()
    pair = SimpleNamespace(full_attn_allocator=full, swa_attn_allocator=window)
    alone = SimpleNamespace(full_attn_allocator=window, swa_attn_allocator=window)
    plain = _allocator()
    assert [two_pools(a) for a in (pair, alone, plain)] == [True, False, False]
    assert [only_window(a) for a in (pair, alone, plain)] == [False, True, False]
    assert (full_pool(pair), window_pool(pair), full_pool(plain)) == (full, window, plain)


def test_a_node_of_a_hybrid_tree_has_its_window_part_and_its_state():
    node = _unified_node(2, [5, 6], [11, 12], lock_ref=2)
    node.component_data = [
        node.component_data[0],
        SimpleNamespace(value=_ids(3, 4), lock_ref=1, metadata={"uuid": 7}),
        SimpleNamespace(value=_ids(9), lock_ref=3),
    ]
    evicted = _unified_node(3, [7], [13])
    empty = SimpleNamespace(value=None, lock_ref=0, metadata={})
    evicted.component_data = [evicted.component_data[0], empty, empty]
    views = {v.id: v for v in read_tree(_unified_tree(_unified_node(1, [], [], children=[node, evicted])))}
    read = views[2]
    assert (read.window_slots, read.window_lock, read.window_end) == ([3, 4], 1, 7)
    assert (read.state_slots, read.state_lock, read.lock_ref) == ([9], 3, 2)
    assert views[3].window_slots is None and views[3].state_slots == []


def test_of_a_row_the_positions_that_left_the_window_can_be_left_out():
    kv = KvState(row=1, protected=2, committed=7, allocated=7)
    holder = HolderView("r0", kv, [10, 11], [12, 13, 14, 15, 16], window_freed=(3, 5))
    assert holder.row == [10, 11, 12, 13, 14, 15, 16]
    assert holder.own_in_window() == [12, 15, 16]
