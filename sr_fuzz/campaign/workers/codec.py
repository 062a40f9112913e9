"""Messages as bytes: JSON whose paths are relative to folders that both ends know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sr_fuzz.bugs.catalogue import shipped_folder
from sr_fuzz.campaign.workers.messages import FORMAT, FollowerSetup, FromProcess, SearcherSetup, ToProcess
from sr_fuzz.outcome.plain_text import storable

Message = TypeVar("Message")


class Codec:
    """Encodes and decodes the messages between a campaign and one of its processes."""

    def __init__(self, folders: Mapping[str, Path] | None = None) -> None:
        """``folders``: those that paths are relative to, by the names that stand for them in messages."""
        self._folders = dict(folders or {})
        self._encoder = msgspec.json.Encoder(enc_hook=self._to_data)
        self._to = msgspec.json.Decoder(ToProcess, dec_hook=self._from_data)
        self._from = msgspec.json.Decoder(FromProcess, dec_hook=self._from_data)

    @classmethod
    def after(cls, setup: ToProcess) -> Codec:
        """Return the one for all that follows a setup, which says where the folders are."""
        if not isinstance(setup, FollowerSetup):
            return cls()
        known = {"known": setup.known} if setup.known is not None else {}
        return cls({"findings": setup.out, **known, "bugs": shipped_folder()})

    def encode(self, message: ToProcess | FromProcess) -> bytes:
        return self._encoder.encode(message)

    def decode_to(self, data: bytes) -> ToProcess:
        """Read a message to a process. Raises ``ValueError`` for what is none, or is of another format."""
        message = _decoded(self._to, data)
        if isinstance(message, SearcherSetup | FollowerSetup) and message.format != FORMAT:
            raise ValueError(f"format: this version reads messages of format {FORMAT}, got {message.format}")
        return message

    def decode_from(self, data: bytes) -> FromProcess:
        """Read a message from a process. Raises ``ValueError`` for what is none."""
        return _decoded(self._from, data)

    def _to_data(self, value: Any) -> list[str]:
        """A path is the name of a folder and what comes below it; of a setup, no name and the whole path."""
        if not isinstance(value, Path):
            raise NotImplementedError(f"{type(value).__name__} is part of no message")
        for name, folder in self._folders.items():
            if value.is_relative_to(folder):
                return [name, storable(str(value.relative_to(folder)))]
        return ["", storable(str(value))]

    def _from_data(self, wanted: type, value: Any) -> Path:
        match value:
            case [str(name), str(below)] if wanted is Path and (not name or name in self._folders):
                return self._folders[name] / below if name else Path(below)
        raise ValueError(f"no {wanted.__name__} of a message: {value!r}")


def _decoded(decoder: msgspec.json.Decoder[Message], data: bytes) -> Message:
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no message of a campaign: {error}") from None
