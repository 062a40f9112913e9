"""Reads a batch at the moment it is launched: which part of which request it computes.

The next step reuses the fields of a batch, so they are copied when the hook sees the launch. Sources:
``ScheduleBatch.prepare_for_extend`` (``prefix_lens``, ``extend_lens``) and ``mix_with_running`` (the decoding requests
follow the prefilling ones) in ``managers/schedule_batch.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sr_fuzz.sglang_api.partial import Partial
from sr_fuzz.sglang_api.requests import Request


class Row(Partial):
    """One entry of a launched batch, which computes part of one request. Lengths are in tokens."""

    residency: int
    """How often the request had been retracted before."""
    known: int
    """Tokens of the request when the batch was launched: its prompt and its output so far."""

    start: int
    end: int

    def __init__(self, req: Request, decode: bool, batch: Any = None, index: int = 0) -> None:
        """``batch``, ``index``: for a prefill, SGLang's batch and the position of the request in it."""
        self.req = req
        self.decode = decode
        """Whether the entry decodes one token; otherwise it prefills positions [start, end)."""
        self.take("start", lambda: 0 if batch is None else int(batch.prefix_lens[index]))
        self.take("end", lambda: 0 if batch is None else self.start + int(batch.extend_lens[index]))
        self.take("known", lambda: len(req.origin_input_ids) + len(req.output_ids))
        self.take("residency", lambda: req.retraction_count)

    def is_partial(self) -> bool:
        """Whether the entry is a prefill that leaves part of the request for later."""
        return not self.decode and self.end < self.known


class Launched(NamedTuple):
    """One batch, as it was launched."""

    mode: str | None
    rows: tuple[Row, ...]
    chunked: Request | None
    """The scheduler's ``chunked_req`` at the launch."""


def read_batch(batch: Any, reqs: Sequence[Request], chunked: Request | None) -> Launched:
    """Read ``batch``: ``reqs`` are its requests, ``chunked`` is the scheduler's ``chunked_req`` now."""
    mode = batch.forward_mode.name.lower() if batch.forward_mode is not None else None
    if mode not in ("extend", "mixed"):
        return Launched(mode, tuple(Row(req, True) for req in reqs), chunked)
    prefilling = len(reqs) - len(getattr(batch, "decoding_reqs", None) or ())
    rows = (Row(req, index >= prefilling, batch, index) for index, req in enumerate(reqs))
    return Launched(mode, tuple(rows), chunked)
