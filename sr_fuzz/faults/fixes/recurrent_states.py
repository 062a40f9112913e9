"""Fixes of known bugs in the checkpoints of recurrent states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sr_fuzz.faults import fault, triggered, wrapped


@fault("checkpoints_alternate", stands_for="state-of-other-length.md", expected=())
@contextmanager
def checkpoints_alternate() -> Iterator[None]:
    """No two checkpoints in a row of one request are written to the same of its two slots."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch, set_mamba_track_indices_from_reqs

    last: dict[str, int] = {}

    def prepare_extend(original, batch, *args, **kwargs):
        result = original(batch, *args, **kwargs)
        for req in batch.reqs:
            last.pop(req.rid, None)
            if _holder(req).mamba_last_track_seqlen is not None:
                last[req.rid] = _holder(req).mamba_last_track_idx
        return result

    def prepare_decode(original, batch, *args, **kwargs):
        result = original(batch, *args, **kwargs)
        mask, slots = batch.mamba_track_mask_cpu, batch.mamba_track_buffer_indices
        if mask is None or slots is None:
            return result
        rows = list(zip(batch.reqs, mask, slots, strict=True))
        again = [req for req, due, slot in rows if due and last.get(req.rid) == slot]
        for req in again:
            triggered()
            _holder(req).mamba_next_track_idx = 1 - last[req.rid]
        if again:
            set_mamba_track_indices_from_reqs(batch)
            slots = batch.mamba_track_buffer_indices
        last.update({req.rid: slot for req, due, slot in zip(batch.reqs, mask, slots, strict=True) if due})
        return result

    with (
        wrapped(ScheduleBatch, "prepare_for_extend", prepare_extend),
        wrapped(ScheduleBatch, "prepare_for_decode", prepare_decode),
    ):
        yield


@fault("not_kept_in_mixed_batch", stands_for="state-not-kept-in-mixed-batch.md", expected=())
def not_kept_in_mixed_batch():
    """What a mixed batch does not keep is not recorded as kept, so that the tree does not take it."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    def mix(original, batch, running_batch):
        tracked, prefilled = batch.mamba_track_indices is not None, list(batch.reqs)
        original(batch, running_batch)
        if tracked and batch.mamba_track_indices is None:
            triggered()
            for req in prefilled:
                _holder(req).mamba_last_track_seqlen = None

    return wrapped(ScheduleBatch, "mix_with_running", mix)


def _holder(req: Any) -> Any:
    """Return what keeps the request's slots: its KV record, up to 0.5.18 the request itself."""
    return req.kv if hasattr(req.kv, "mamba_next_track_idx") else req
