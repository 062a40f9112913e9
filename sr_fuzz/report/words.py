"""Words for numbers and texts that all output has."""

from __future__ import annotations

from sr_fuzz.outcome.plain_text import printable


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def first_line(message: str) -> str:
    return printable(message.partition("\n")[0])


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
