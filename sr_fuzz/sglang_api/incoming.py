"""The messages that a scheduler receives; the only module that reads their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sr_fuzz.sglang_api.messages import CONTROLS

_CALLS = {control.message: call for call, control in CONTROLS.items()}


class Received:
    """One message that the scheduler received."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        """SGLang's own object."""

    @property
    def kind(self) -> str:
        """The name of its class."""
        return type(self.raw).__name__

    @property
    def call(self) -> str | None:
        """Its control call, one of `CONTROLS`; None for requests and for messages that no script sends."""
        return _CALLS.get(self.kind)

    @property
    def is_request(self) -> bool:
        """Whether it is a request for tokens or an embedding."""
        return hasattr(self.raw, "sampling_params")

    @property
    def rid(self) -> str | None:
        return getattr(self.raw, "rid", None)

    # -- of requests -------------------------------------------------------------------------------------------

    @property
    def input_ids(self) -> Sequence[int]:
        return self.raw.input_ids

    @property
    def max_new_tokens(self) -> int:
        return self.raw.sampling_params.max_new_tokens

    @property
    def lora_id(self) -> str | None:
        return getattr(self.raw, "lora_id", None)

    @property
    def session_params(self) -> Any | None:
        """SGLang's ``SessionParams`` of a turn, which has the same fields as ours."""
        return getattr(self.raw, "session_params", None)

    # -- of control calls --------------------------------------------------------------------------------------

    @property
    def abort_all(self) -> bool:
        """Whether an abort is for all requests."""
        return self.raw.abort_all

    @property
    def retracts(self) -> bool:
        """Whether it is a pause that retracts requests."""
        return self.call == "pause" and self.raw.mode == "retract"

    @property
    def session_id(self) -> str:
        """The session that the message opens or closes."""
        return self.raw.session_id

    @property
    def opens_streaming(self) -> bool:
        return bool(self.raw.streaming)

    @property
    def opens_timed(self) -> bool:
        """Whether it opens a session with a time-out."""
        return self.raw.timeout is not None
