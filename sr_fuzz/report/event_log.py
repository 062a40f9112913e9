"""The log of a campaign: each event as a line of JSON, for other programs, written when it happens."""

from __future__ import annotations

import datetime
import os
from io import FileIO
from pathlib import Path

from sr_fuzz.campaign.event_codec import encode_line
from sr_fuzz.campaign.events import Event


class EventLog:
    """A listener that appends to a file; a context manager.

    A line that the disk does not take ends the log and not the campaign: ``problem`` says why.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where the file cannot be opened."""
        self.problem = ""
        self._path = path
        # A pipe without a reader is refused; one that loses its reader later ends the log.
        number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
        os.set_blocking(number, True)
        self._file = FileIO(number, "a")  # unbuffered: a campaign may be killed at any moment
        self._end_line()

    def _end_line(self) -> None:
        """End the half line that a killed campaign, or a full disk, has left."""
        if not self._path.is_file() or not self._path.stat().st_size:
            return
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                self._file.write(b"\n")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def __call__(self, event: Event) -> None:
        if self.problem:
            return
        try:
            line = encode_line(event, datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")) + b"\n"
            written = self._file.write(line)
        except UnicodeEncodeError as error:
            self.problem = f"{self._path}: an event that cannot be encoded: {error.reason}"
            return
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"
            return
        if written != len(line):
            self.problem = f"{self._path}: no room for a whole line"
