"""Reading a batch at the moment it is launched: what part of which request it computes.

A batch's fields are taken over by the next step, so they are copied when the hook sees the launch. Sources:
``ScheduleBatch.prepare_for_extend`` (``prefix_lens``, ``extend_lens``) and ``mix_with_running`` (the decoding requests
follow the prefilling ones) in ``managers/schedule_batch.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sr_fuzz.sglang_api.partial import Partial
from sr_fuzz.sglang_api.requests import Request


class Row(Partial):
    """One request in a launched batch. Lengths in tokens."""

    residency: int
    """How often it had been retracted before."""
    known: int
    """Tokens it had when the batch was launched: its prompt and its output so far."""

    def __init__(self, req: Request, decode: bool, start: int = 0, end: int = 0) -> None:
        self.req = req
        self.decode = decode
        """Whether it decodes one token; else it prefills positions [start, end)."""
        self.start = start
        self.end = end
        self.take("known", lambda: len(req.origin_input_ids) + len(req.output_ids))
        self.take("residency", lambda: req.retraction_count)

    @property
    def partial(self) -> bool:
        """Whether it is a prefill that leaves part of the request for later."""
        return not self.decode and self.end < self.known


class Launched(NamedTuple):
    """One batch, as it was launched."""

    mode: str | None
    rows: tuple[Row, ...]
    chunked: Request | None
    """The request that the scheduler held as the chunked one."""


def read_batch(batch: Any, reqs: Sequence[Request], chunked: Request | None) -> Launched:
    """``reqs``: those of the batch; ``chunked``: the scheduler's ``chunked_req`` now."""
    mode = batch.forward_mode.name.lower() if batch.forward_mode is not None else None
    if mode not in ("extend", "mixed"):
        return Launched(mode, tuple(Row(req, True) for req in reqs), chunked)
    prefilling = len(reqs) - len(getattr(batch, "decoding_reqs", None) or ())
    rows = [
        Row(req, index >= prefilling, int(start), int(start) + int(length))
        for index, (req, start, length) in enumerate(zip(reqs, batch.prefix_lens, batch.extend_lens))
    ]
    return Launched(mode, tuple(rows), chunked)
