"""The messages that a scheduler sends; the only module that reads their fields.

A field that an SGLang lacks is absent from the `Delta`, and raises ``AttributeError`` where it is read;
`sr_fuzz.sglang_api.missing` has the effect of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sr_fuzz.sglang_api.partial import Partial


class Logprobs(NamedTuple):
    """The logprobs in a message: their tokens, the number of lists of top logprobs, and the entries per list."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    top_inputs: int
    top_outputs: int
    widths: frozenset[int]

    @property
    def any(self) -> bool:
        return bool(self.inputs or self.outputs or self.top_inputs or self.top_outputs)


class Delta(Partial):
    """One message about one request.

    ``finish`` is SGLang's finish reason as a dict; None while the request continues.
    """

    def __init__(
        self,
        step: int,
        tokens: list[int],
        finish: dict[str, Any] | None,
        *,
        aborted: bool = False,
        completion_tokens: int | None = None,
        output_logprobs: int | None = None,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        logprobs: Logprobs | None = None,
        embedding: list[float] | None = None,
    ) -> None:
        self.step = step
        self.tokens = tokens
        self.finish = finish
        self.aborted = aborted
        """True when the message is an ``AbortReq`` and not part of the output stream."""
        self.completion_tokens = completion_tokens
        self.output_logprobs = output_logprobs
        """Number of output token logprobs in this message; None when none were requested."""
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        self.logprobs = logprobs
        """None when no request in the message's batch asked for logprobs."""
        self.embedding = embedding
        """The result of an embedding request, in place of tokens."""


class Reply(NamedTuple):
    """The reply to a control call."""

    kind: str
    """The name of SGLang's class."""
    success: bool | None
    """The reply's field ``success``; None if it has none."""


FLUSH_REPLY = "FlushCacheReqOutput"
OPEN_REPLY = "OpenSessionReqOutput"


def read(message: Any, step: int) -> Reply | list[tuple[str, Delta]]:
    """Return a message's deltas by request id; any other message is returned as a `Reply`."""
    kind = type(message).__name__
    if kind == "AbortReq":
        delta = Delta(step, [], None, aborted=True)
        delta.take("finish", lambda: message.finished_reason or {"type": "abort"})
        return [(message.rid, delta)]
    if not hasattr(message, "rids") or not hasattr(message, "finished_reasons"):
        return Reply(kind, getattr(message, "success", None))
    _check_lengths(message)
    told = _embedding if kind == "BatchEmbeddingOutput" else _tokens
    return list(told(message, step))


def _check_lengths(message: Any) -> None:
    """Raises ``IndexError`` where a list is there and is not as long as the list of request ids."""
    count = len(message.rids)
    for name in ("finished_reasons", "embeddings", *_LISTS):
        values = getattr(message, name, None)
        if values and len(values) != count:
            raise IndexError(f"{name} has {len(values)} entries for {count} request ids")


_LISTS = ("output_ids", "completion_tokens", "prompt_tokens", "cached_tokens", "output_token_logprobs_val")


def _embedding(message: Any, step: int) -> Iterator[tuple[str, Delta]]:
    for index, rid in enumerate(message.rids):
        delta = Delta(step, [], message.finished_reasons[index])
        delta.take("embedding", functools.partial(_embedding_of, message, index))
        yield rid, delta


def _embedding_of(message: Any, index: int) -> Any:
    return message.embeddings[index]


def _tokens(message: Any, step: int) -> Iterator[tuple[str, Delta]]:
    for index, rid in enumerate(message.rids):
        delta = Delta(step, [], message.finished_reasons[index])
        for field, read_field in _FIELDS.items():
            delta.take(field, functools.partial(read_field, message, index))
        yield rid, delta


def _of(name: str) -> Callable[[Any, int], Any]:
    """Return a reader of one request's part of a field, which is empty or None if no request asked for it."""

    def read_field(message: Any, index: int) -> Any:
        values = getattr(message, name)
        return values[index] if values else None

    return read_field


def _logprobs(message: Any, index: int) -> Logprobs | None:
    if not message.output_token_logprobs_val:
        return None

    def part(name: str) -> Any:
        return getattr(message, name)[index] or ()

    tops = part("input_top_logprobs_val"), part("output_top_logprobs_val")
    widths = {len(top) for lists in tops for top in lists if top is not None}
    tokens = (tuple(part(f"{kind}_token_logprobs_idx")) for kind in ("input", "output"))
    return Logprobs(*tokens, *map(len, tops), frozenset(widths))


def _output_logprobs(message: Any, index: int) -> int | None:
    values = message.output_token_logprobs_val
    return len(values[index]) if values else None


_FIELDS: dict[str, Callable[[Any, int], Any]] = {
    "tokens": lambda message, index: list(_of("output_ids")(message, index) or ()),
    "completion_tokens": _of("completion_tokens"),
    "output_logprobs": _output_logprobs,
    "prompt_tokens": _of("prompt_tokens"),
    "cached_tokens": _of("cached_tokens"),
    "logprobs": _logprobs,
}
"""By field of `Delta`: how it is read from a message with output tokens."""
