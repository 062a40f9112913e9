"""A recorder in place of the sockets to the tokenizer and the detokenizer: it stores all messages, by request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sr_fuzz.sglang_api import outputs
from sr_fuzz.sglang_api.outputs import FLUSH_REPLY, Delta, Reply


@dataclass(slots=True)
class Stream:
    """All messages that were sent for one request id."""

    rid: str
    deltas: list[Delta] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.tokens]

    @property
    def finishes(self) -> list[Delta]:
        return [delta for delta in self.deltas if delta.aborted or delta.finish is not None]

    @property
    def answered(self) -> bool:
        """Whether the last message for this request id has been sent."""
        return any(delta.aborted or delta.finish is not None for delta in self.deltas)


class OutputRecorder:
    """Stores streams and control replies with their order; the hook sets `step` before each step."""

    def __init__(self) -> None:
        self.step = 0
        self.streams: dict[str, Stream] = {}
        self.replies: list[tuple[int, Reply]] = []
        """Replies to control calls, as (step, reply)."""
        self.sent_in_step: list[tuple[str, Delta]] = []
        self.malformed: list[str] = []
        """Errors in malformed messages, of which nothing else is recorded."""
        self.flushes = 0
        """Number of successful flushes of the cache."""
        self._closed = False

    def clear(self) -> None:
        """Drop all records, before another script begins."""
        self.step = 0
        self.streams.clear()
        self.replies.clear()
        self.sent_in_step = []
        self.malformed.clear()
        self.flushes = 0

    def close(self) -> None:
        """Stop recording."""
        self._closed = True

    def begin_step(self, step: int) -> None:
        self.step = step
        self.sent_in_step = []

    def stream(self, rid: str) -> Stream:
        return self.streams.setdefault(rid, Stream(rid))

    def answered(self, rid: str) -> bool:
        """Whether the last message for a request id has been sent."""
        return rid in self.streams and self.streams[rid].answered

    def record(self, message: Any) -> None:
        if message is None or self._closed:
            return
        try:
            found = outputs.read(message, self.step)
        except (IndexError, TypeError, KeyError) as error:
            # A list in the message is too short, or is None. This is an error in SGLang's message, not in our code.
            self.malformed.append(f"{type(message).__name__}: {type(error).__name__}: {error}")
            return
        if isinstance(found, Reply):
            self.replies.append((self.step, found))
            self.flushes += found.kind == FLUSH_REPLY and bool(found.success)
            return
        for rid, delta in found:
            self._add(rid, delta)

    def _add(self, rid: str, delta: Delta) -> None:
        self.stream(rid).deltas.append(delta)
        self.sent_in_step.append((rid, delta))


class RecordingSender:
    """Replaces SGLang's ``SenderWrapper``, or wraps it: messages are then also sent to ``onward``."""

    def __init__(self, recorder: OutputRecorder, onward: Any = None) -> None:
        self._recorder = recorder
        self._onward = onward

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        self._recorder.record(output)
        if self._onward is not None:
            self._onward.send_output(output, recv_obj)

    def __getattr__(self, name: str) -> Any:
        """Forward any other attribute that SGLang reads from its own sender."""
        if self._onward is None:
            raise AttributeError(name)
        return getattr(self._onward, name)
