"""Reading a batch at the moment it is launched: what part of which request it computes.

A batch's fields are taken over by the next step, so they are copied when the hook sees the launch. Sources:
``ScheduleBatch.prepare_for_extend`` (``prefix_lens``, ``extend_lens``) and ``mix_with_running`` (the decoding requests
follow the prefilling ones) in ``managers/schedule_batch.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One request in a launched batch. Lengths in tokens."""

    req: Any
    decode: bool
    """Whether it decodes one token; else it prefills positions [start, end)."""
    start: int
    end: int
    known: int
    """Tokens it had when the batch was launched: its prompt and its output so far."""
    residency: int
    """How often it had been retracted before."""

    @property
    def partial(self) -> bool:
        """Whether it is a prefill that leaves part of the request for later."""
        return not self.decode and self.end < self.known


class Launched(NamedTuple):
    """One batch, as it was launched."""

    mode: str | None
    rows: tuple[Row, ...]
    chunked: Any | None
    """The request that the scheduler held as the chunked one."""


def read_batch(batch: Any, chunked: Any | None) -> Launched:
    """``chunked``: the scheduler's ``chunked_req`` now."""
    mode = batch.forward_mode.name.lower() if batch.forward_mode is not None else None
    if mode not in ("extend", "mixed"):
        return Launched(mode, tuple(_row(req, True, 0, 0) for req in batch.reqs), chunked)
    prefilling = len(batch.reqs) - len(getattr(batch, "decoding_reqs", None) or ())
    rows = [
        _row(req, index >= prefilling, int(start), int(start) + int(length))
        for index, (req, start, length) in enumerate(zip(batch.reqs, batch.prefix_lens, batch.extend_lens))
    ]
    return Launched(mode, tuple(rows), chunked)


def _row(req: Any, decode: bool, start: int, end: int) -> Row:
    return Row(req, decode, start, end, len(req.origin_input_ids) + len(req.output_ids), req.retraction_count)
