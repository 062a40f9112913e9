"""CPU versions of SGLang's compiled kernels for speculative decoding.

The drafts of a request are the nodes of a tree, numbered so that a parent comes before its children; node 0 is the
newest known token. All functions write into tensors that the caller passes. Batches are short here, so Python lists are
fast enough.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch


def tree_links(mask: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
    """Return the depth, first child and next sibling (-1 where there is none) of each node of one tree.

    ``mask``: bool [nodes, nodes]; ``mask[i, j]`` says that ``j`` is ``i`` or one of its ancestors.
    """
    rows = mask.tolist()
    depth = [sum(row[:node]) for node, row in enumerate(rows)]
    child, sibling = [-1] * len(rows), [-1] * len(rows)
    newest: dict[int, int] = {}
    for node, row in enumerate(rows):
        parent = max((above for above in range(node) if row[above]), default=-1)
        if parent < 0:
            continue
        if parent in newest:
            sibling[newest[parent]] = node
        else:
            child[parent] = node
        newest[parent] = node
    return depth, child, sibling


def reconstruct_indices_from_tree_mask(
    tree_mask: torch.Tensor,
    verified_seq_len: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
    batch_size: int,
    draft_token_num: int,
) -> None:
    """Compute the positions of all nodes and the links of each tree.

    ``tree_mask``: flat, [requests * nodes * nodes]; ``positions``: flat, [requests * nodes]; the other results are
    [requests, nodes]. A position is the request's length plus the node's depth; ``retrieve_index`` counts rows.
    """
    masks = tree_mask.view(batch_size, draft_token_num, draft_token_num).bool()
    depths, children, siblings = [], [], []
    for mask in masks:
        depth, child, sibling = tree_links(mask)
        depths.append(depth)
        children.append(child)
        siblings.append(sibling)
    shape = (batch_size, draft_token_num)
    depth_of = torch.tensor(depths, dtype=torch.int64).view(shape)
    positions.copy_((verified_seq_len.to(torch.int64)[:, None] + depth_of).flatten())
    retrieve_index.copy_(torch.arange(batch_size * draft_token_num).view(shape))
    retrieve_next_token.copy_(torch.tensor(children, dtype=torch.int64).view(shape))
    retrieve_next_sibling.copy_(torch.tensor(siblings, dtype=torch.int64).view(shape))


def verify_tree_greedy(
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrive_index: torch.Tensor,
    retrive_next_token: torch.Tensor,
    retrive_next_sibling: torch.Tensor,
    target_predict: torch.Tensor,
) -> None:
    """Walk down each tree as long as a child matches the token that the model predicts after its parent.

    ``candidates``, ``target_predict`` and the links have shape [requests, nodes]. The function writes the accepted
    rows, root first, into ``accept_index`` [requests, steps], which is filled with -1 by the caller; their number
    without the root into ``accept_token_num`` [requests]; and the model's token after each accepted row into
    ``predicts`` [requests * nodes].
    """
    tokens, wanted = candidates.tolist(), target_predict.tolist()
    rows, children, siblings = retrive_index.tolist(), retrive_next_token.tolist(), retrive_next_sibling.tolist()
    for index in range(len(tokens)):
        path = [0]
        while len(path) < accept_index.shape[1]:
            node = children[index][path[-1]]
            while node >= 0 and tokens[index][node] != wanted[index][path[-1]]:
                node = siblings[index][node]
            if node < 0:
                break
            path.append(node)
        for at, node in enumerate(path):
            accept_index[index, at] = rows[index][node]
            predicts[rows[index][node]] = wanted[index][node]
        accept_token_num[index] = len(path) - 1


def assign_extend_cache_locs(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    *_row_width: Any,
) -> None:
    """Pack ``req_to_token[row, start:end]`` of each request into the front of ``out_cache_loc``."""
    at = 0
    for row, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        out_cache_loc[at : at + end - start] = req_to_token[row, start:end].to(out_cache_loc.dtype)
        at += end - start


def assign_req_to_token_pool(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    *_row_width: Any,
) -> None:
    """The inverse: unpack ``out_cache_loc`` into ``req_to_token[row, start:end]`` of each request."""
    at = 0
    for row, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        req_to_token[row, start:end] = out_cache_loc[at : at + end - start].to(req_to_token.dtype)
        at += end - start


def fill_accept_out_cache_loc(
    accept_index: torch.Tensor, out_cache_loc: torch.Tensor, accept_out_cache_loc: torch.Tensor, *_size: Any
) -> None:
    """Pack the slots of the accepted rows (those that are not -1) into the front of ``accept_out_cache_loc``."""
    flat = accept_index.flatten()
    slots = out_cache_loc[flat[flat >= 0].long()]
    accept_out_cache_loc[: len(slots)] = slots


def copy_all_layer_kv_cache(
    data_ptrs: torch.Tensor, strides: torch.Tensor, tgt_loc: torch.Tensor, src_loc: torch.Tensor
) -> None:
    """Copy slots ``src_loc`` of each buffer to ``tgt_loc``; all slots are read before the first one is written.

    ``data_ptrs``: addresses of the buffers in this process's memory; ``strides``: bytes per slot, for each buffer.
    """
    targets, sources = tgt_loc.tolist(), src_loc.tolist()
    for start, size in zip(data_ptrs.tolist(), strides.tolist(), strict=True):
        slots = [ctypes.string_at(start + source * size, size) for source in sources]
        for target, slot in zip(targets, slots, strict=True):
            ctypes.memmove(start + target * size, slot, size)
