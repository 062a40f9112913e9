"""What an engine needs of the process that starts it; without it an engine fails late, and with another error."""

from __future__ import annotations

import resource
from typing import NamedTuple

from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.user_folders import why_no_cache


class Limit(NamedTuple):
    """A limit of processes (``setrlimit``) that can be too low for an engine."""

    kind: int
    least: int
    """In the unit of the limit."""
    shown: str
    """The least value, in words."""
    option: str
    """Of the shell's ``ulimit``."""


# Measured on SGLang 0.5.23 for a process with a booted scheduler: 1.72 GB of addresses, 0.81 GB of data, 54 files. With
# 0.5 GB of addresses torch does not even fail but loads its libraries for ever.
LIMITS = (
    Limit(resource.RLIMIT_AS, 1_900_000_000, "2 GB of addresses", "-v"),
    Limit(resource.RLIMIT_DATA, 1_000_000_000, "1 GB of data", "-d"),
    Limit(resource.RLIMIT_NOFILE, 128, "128 open files", "-n"),
)


def check() -> None:
    """Raise `EngineError`, one line that says what to do, where no engine could start."""
    for problem in (why_no_cache(), *low_limits()):
        if problem is not None:
            raise EngineError(problem)


def low_limits() -> list[str]:
    """Return, in one line each that says what to do, which limits of this process are too low for an engine."""
    low = []
    for limit in LIMITS:
        soft, hard = resource.getrlimit(limit.kind)
        if soft != resource.RLIM_INFINITY and soft < limit.least:
            # Only root can raise the hard limit, in the place where it was set.
            may = hard == resource.RLIM_INFINITY or hard >= limit.least
            todo = f"raise it with ulimit -S {limit.option} hard" if may else "raise it where it is set"
            low.append(f"ulimit {limit.option} is too low: a process of an engine needs {limit.shown}; {todo}")
    return low
