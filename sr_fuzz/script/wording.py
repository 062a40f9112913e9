"""Words for messages: what a user or a file gave may be of any length and have any character, a message may not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 200
"""Most characters of a text of others that a message repeats: enough to recognise it by, and two lines at most."""

# The time that a comparison takes grows with the square of the length, and no name of ours has half as many characters.
_COMPARED = 60


def shortened(text: str, most: int = SHOWN) -> str:
    """Return ``text`` as one line of printable characters; of a long one the middle is left out."""
    # Escapes make a text longer, so one is cut before and after. Both ends are kept: a path ends with the file's name,
    # an error with its reason.
    return _cut("".join(map(escaped, _cut(text, most))), most)


def escaped(character: str) -> str:
    """Return a character as it is if it is printable, else its escape sequence in Python."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def one_line(text: str, most: int = SHOWN) -> str:
    """Return ``text`` like `shortened`, with single spaces for its line breaks and other white space."""
    # No more than this can be seen of it in the end; the split of a very long text would take long.
    return shortened(" ".join(_cut(text, 4 * most).split()), most)


def first_and_last(message: str) -> str:
    """Return the first line of an engine's error, which says what happened, and the last one, which may say why."""
    first, *log = [line.strip() for line in message.splitlines() if line.strip()] or ["the engine failed"]
    last = log[-1] if log else ""
    # A traceback ends with the error that the first line may already contain.
    told = last.partition(": ")[2] or last
    return f"{first.rstrip('.')}: {last}" if last and told not in first else first


def reason(error: BaseException) -> str:
    """Return the type of an error and its message, in one line; an error of others may have no message to be had."""
    try:
        said = str(error)
    except Exception:
        said = "it has no message"
    return f"{type(error).__name__}: {one_line(said)}" if said.strip() else type(error).__name__


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return ``did you mean …?`` with the known names that are most like ``name``, or ``otherwise`` if none is."""
    close = difflib.get_close_matches(name[:_COMPARED], list(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
