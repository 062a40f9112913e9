"""Text of others as Python source: in a docstring, or as a literal that gives it back exactly.

Messages of SGLang, reasons and paths may hold quotes, backslashes, control characters and lone surrogates. Whatever
they hold, the file compiles and nothing of them is code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sr_fuzz.script.wording import escaped


def in_docstring(line: str, width: int | None = None) -> str:
    """Return a line for use between triple quotes, at most ``width`` columns long; a longer one ends in ``...``."""
    tokens = list(_tokens(line))
    if width is None or sum(map(len, tokens)) <= width:
        return "".join(tokens)
    shown, room = "", width - len("...")
    for token in tokens:  # an escape sequence is kept whole, since half of one would not compile
        if len(shown) + len(token) > room:
            break
        shown += token
    return f"{shown}..."


def _tokens(line: str) -> Iterator[str]:
    """Give each character as it is written between triple quotes."""
    ending = {index for run in re.finditer('"{3,}', line) for index in range(*run.span())}
    for index, c in enumerate(line):
        if c == "\\" or index in ending:
            yield f"\\{c}"
        else:
            yield escaped(c)


def quoted(value: str) -> str:
    """Return a string literal, in double quotes where that needs no escapes."""
    shown = repr(value)
    return shown if '"' in value or shown[0] == '"' else f'"{shown[1:-1]}"'


def literal(value: str, room: int) -> list[str]:
    """Return a string literal: one line if it fits into ``room`` columns, else several literals that Python joins.

    A line ends after a space where there is one.
    """
    lines, line = [], ""
    for word in re.findall(r"[^ ]* |[^ ]+", value):
        if line and len(quoted(line + word)) > room:
            lines.append(line)
            line = ""
        for c in word if len(quoted(word)) > room else (word,):
            if line and len(quoted(line + c)) > room:
                lines.append(line)
                line = ""
            line += c
    return [quoted(each) for each in [*lines, line]]
