"""Events of a campaign as lines of JSON: for a log, and for messages between processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sr_fuzz.campaign.events import Event
from sr_fuzz.outcome.plain_text import storable

EVENT_FORMAT = 1
"""Format version of the lines; raised whenever an old line would be read with another meaning."""


class EventLine(msgspec.Struct, frozen=True):
    """One line: an event and when it was sent."""

    format: int
    time: str
    """ISO 8601, in UTC."""
    event: Event


def encode_line(event: Event, time: str) -> bytes:
    """Return a line of JSON, without a line break at its end."""
    return msgspec.json.encode(EventLine(EVENT_FORMAT, time, event), enc_hook=to_data)


def decode_line(data: bytes) -> EventLine:
    """Read one line. Raises ``ValueError``, one line, for what is none, or is of another format."""
    try:
        found = msgspec.json.decode(data, type=_Versioned).format
        if found == EVENT_FORMAT:
            return msgspec.json.decode(data, type=EventLine, dec_hook=from_data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no line of an event log: {error}") from None
    raise ValueError(f"format: this version of sr_fuzz reads events of format {EVENT_FORMAT}, got {found}")


class _Versioned(msgspec.Struct, frozen=True):
    format: int


def to_data(value: Any) -> str:
    """Encode what msgspec does not know: a path. A hook of its encoders."""
    if isinstance(value, Path):
        return storable(str(value))
    raise NotImplementedError(f"{type(value).__name__} is part of no event")


def from_data(wanted: type, value: Any) -> Any:
    """Decode what `to_data` encodes. A hook of msgspec's decoders."""
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{wanted.__name__} is part of no event")
