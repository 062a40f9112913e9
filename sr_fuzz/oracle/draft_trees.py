"""The attention mask among the drafts of a target-verify forward."""

from __future__ import annotations

from typing import Any

import torch


def ancestors(forward_batch: Any) -> list[torch.Tensor]:
    """Return for each request a bool [drafts, drafts]: ``[i, j]`` says that ``j`` is ``i`` or one of its ancestors.

    SGLang passes one flat mask for the batch. For each request it covers the drafts alone (on a CPU), or for each draft
    also the history before the drafts, which all drafts attend to.
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
