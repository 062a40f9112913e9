"""What stands for the sockets to the tokenizer and the detokenizer: everything sent is kept, per request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Logprobs(NamedTuple):
    """What logprobs a message brings: of which tokens; of top logprobs how many lists, of how many entries each."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    top_inputs: int
    top_outputs: int
    widths: frozenset[int]

    @property
    def any(self) -> bool:
        return bool(self.inputs or self.outputs or self.top_inputs or self.top_outputs)


@dataclass(slots=True)
class Delta:
    """One message about one request. ``finish`` is SGLang's finish reason as a dict, None while it goes on."""

    step: int
    tokens: list[int]
    finish: dict[str, Any] | None
    aborted: bool = False
    """True when it came as an ``AbortReq`` instead of through the output stream."""
    completion_tokens: int | None = None
    output_logprobs: int | None = None
    """Number of output token logprobs in this message, None when none were asked for."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    logprobs: Logprobs | None = None
    """None when nobody in the message's batch asked for any."""
    embedding: list[float] | None = None
    """What an embedding request gets instead of tokens."""


@dataclass(slots=True)
class Stream:
    """All that was sent about one request id."""

    rid: str
    deltas: list[Delta] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.tokens]

    @property
    def finishes(self) -> list[Delta]:
        return [delta for delta in self.deltas if delta.finish is not None or delta.aborted]

    @property
    def answered(self) -> bool:
        """Whether its last word was spoken."""
        return any(delta.finish is not None or delta.aborted for delta in self.deltas)


class OutputRecorder:
    """Keeps streams, control replies and the order of everything; `step` is set by the hook before each step."""

    def __init__(self) -> None:
        self.step = 0
        self.streams: dict[str, Stream] = {}
        self.replies: list[tuple[int, Any]] = []
        """Answers to control requests, as (step, message)."""
        self.sent_in_step: list[tuple[str, Delta]] = []
        self.flushes = 0
        """How often the cache was flushed with success."""
        self._closed = False

    def clear(self) -> None:
        """Forget everything: another script begins."""
        self.step = 0
        self.streams.clear()
        self.replies.clear()
        self.sent_in_step = []
        self.flushes = 0

    def close(self) -> None:
        """Keep nothing from now on."""
        self._closed = True

    def begin_step(self, step: int) -> None:
        self.step = step
        self.sent_in_step = []

    def stream(self, rid: str) -> Stream:
        return self.streams.setdefault(rid, Stream(rid))

    def answered(self, rid: str) -> bool:
        """Whether the last word about a request id was spoken."""
        return rid in self.streams and self.streams[rid].answered

    def record(self, message: Any) -> None:
        if message is None or self._closed:
            return
        kind = type(message).__name__
        if kind == "AbortReq":
            reason = message.finished_reason or {"type": "abort"}
            self._add(message.rid, Delta(self.step, [], reason, aborted=True))
        elif hasattr(message, "rids") and hasattr(message, "output_ids"):
            self._record_batch(message)
        elif hasattr(message, "rids") and hasattr(message, "embeddings"):
            for rid, finish, found in zip(message.rids, message.finished_reasons, message.embeddings, strict=True):
                self._add(rid, Delta(self.step, [], finish, embedding=found))
        else:
            self.replies.append((self.step, message))
            self.flushes += kind == "FlushCacheReqOutput" and bool(message.success)

    def _record_batch(self, message: Any) -> None:
        logprobs = message.output_token_logprobs_val
        for index, rid in enumerate(message.rids):
            self._add(
                rid,
                Delta(
                    step=self.step,
                    tokens=list(message.output_ids[index]) if message.output_ids is not None else [],
                    finish=message.finished_reasons[index],
                    completion_tokens=message.completion_tokens[index] if message.completion_tokens else None,
                    output_logprobs=len(logprobs[index]) if logprobs else None,
                    prompt_tokens=message.prompt_tokens[index] if message.prompt_tokens else None,
                    cached_tokens=message.cached_tokens[index] if message.cached_tokens else None,
                    logprobs=_logprobs(message, index) if logprobs else None,
                ),
            )

    def _add(self, rid: str, delta: Delta) -> None:
        self.stream(rid).deltas.append(delta)
        self.sent_in_step.append((rid, delta))


def _logprobs(message: Any, index: int) -> Logprobs:
    def part(name: str) -> Any:
        return getattr(message, name)[index] or ()

    tops = part("input_top_logprobs_val"), part("output_top_logprobs_val")
    widths = {len(top) for lists in tops for top in lists if top is not None}
    tokens = (tuple(part(f"{kind}_token_logprobs_idx")) for kind in ("input", "output"))
    return Logprobs(*tokens, *map(len, tops), frozenset(widths))


class RecordingSender:
    """Takes the place of SGLang's ``SenderWrapper``, or stands before it: what is sent then also goes ``onward``."""

    def __init__(self, recorder: OutputRecorder, onward: Any = None) -> None:
        self._recorder = recorder
        self._onward = onward

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        self._recorder.record(output)
        if self._onward is not None:
            self._onward.send_output(output, recv_obj)

    def __getattr__(self, name: str) -> Any:
        """Whatever else SGLang asks its own sender for."""
        if self._onward is None:
            raise AttributeError(name)
        return getattr(self._onward, name)
