"""Runs Python so that it ends with the process that started it: ``python -m sr_fuzz.lifetime.with_parent PID ARG …``.

``PID`` is that of the parent; the rest are the arguments of the interpreter.
"""

from __future__ import annotations

import os
import sys

from sr_fuzz.lifetime.parent_death import die_with_parent


def command(*arguments: str) -> list[str]:
    """Return the command line that runs this interpreter with ``arguments`` as a child that ends with this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *arguments]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
