"""Which drafts a target-verify forward lets each other see."""

from __future__ import annotations

from typing import Any

import torch


def ancestors(forward_batch: Any) -> list[torch.Tensor]:
    """For each request bool [drafts, drafts]: entry ``[i, j]`` says that ``j`` is ``i`` or one of its ancestors.

    SGLang gives one mask for the batch, flat: of each request its drafts alone (on a CPU), or for each draft also the
    history before the drafts, which all of them see.
    """
    spec, lengths = forward_batch.spec_info, forward_batch.seq_lens.tolist()
    drafts, mask = spec.draft_token_num, spec.custom_mask.bool()
    alone = mask.numel() == len(lengths) * drafts * drafts
    found, at = [], 0
    for length in lengths:
        width = drafts if alone else length + drafts
        found.append(mask[at : at + drafts * width].view(drafts, width)[:, width - drafts :])
        at += drafts * width
    return found
