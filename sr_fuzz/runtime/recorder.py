"""What stands for the sockets to the tokenizer and the detokenizer: everything sent is kept, per request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sr_fuzz.sglang_api import outputs
from sr_fuzz.sglang_api.outputs import FLUSH_REPLY, Delta, Reply


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
        return [delta for delta in self.deltas if delta.aborted or delta.finish is not None]

    @property
    def answered(self) -> bool:
        """Whether its last word was spoken."""
        return any(delta.aborted or delta.finish is not None for delta in self.deltas)


class OutputRecorder:
    """Keeps streams, control replies and the order of everything; `step` is set by the hook before each step."""

    def __init__(self) -> None:
        self.step = 0
        self.streams: dict[str, Stream] = {}
        self.replies: list[tuple[int, Reply]] = []
        """Answers to control requests, as (step, reply)."""
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
        found = outputs.read(message, self.step)
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
