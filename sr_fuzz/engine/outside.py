"""Detects processes that were ended from outside SGLang: by a signal that SGLang does not send, or by lack of memory.

The kernel's out-of-memory killer sends SIGKILL and leaves no message, but it counts the processes that it killed in
this control group.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

SIGNALS = ("SIGKILL", "SIGTERM")
"""What a user or the kernel ends a process with. SGLang does so as well, when one of a server's processes has failed:
see `ended_by_sglang`."""

# What SGLang logs when one of its processes fails and it ends all the others; it then sends them SIGKILL.
_SGLANG_ENDS_ALL = re.compile(r"SIGQUIT|hit an exception|kill_process_tree")
# What its watchdog logs, before it ends the others, about a process that such a signal has ended: a reaction, no cause.
_SEEN_KILLED = re.compile(r"crashed with exit code -(9|15)\b")

_MOUNT = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")


def oom_kills(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int | None:
    """Return how many processes of this control group the kernel has killed for lack of memory; None if unknown.

    ``groups``: the list of this process's control groups (one ``HIERARCHY:CONTROLLERS:PATH`` per line); ``mount``:
    their mount point. Version 2 counts in ``memory.events``, version 1 in ``memory.oom_control`` below ``memory``.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.oom_control"
        elif not controllers:
            root, name = mount, "memory.events"
        else:
            continue
        # In a separate namespace the group is the root of the mount, whatever its path outside the namespace is.
        for folder in (root / path.lstrip("/"), root):
            count = _count(folder / name)
            if count is not None:
                return count
    return None


def _count(file: Path) -> int | None:
    try:
        counters = dict(line.split() for line in file.read_text().splitlines())
        return int(counters["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def ended_by_sglang(log: str) -> bool:
    """Whether a server's log since the start of a script says that SGLang itself has ended its processes."""
    return _SGLANG_ENDS_ALL.search(_SEEN_KILLED.split(log)[0]) is not None


def signal_in(log: str) -> str | None:
    """Return the signal that, as SGLang's watchdog has logged, ended one of a server's processes; None if none did."""
    seen = _SEEN_KILLED.search(log)
    return None if seen is None else signal.Signals(int(seen[1])).name


def why_killed(signal_name: str, before: int | None, now: int | None) -> str | None:
    """Return one line if a death by that signal is no fault of SGLang, else None.

    ``before``, ``now``: `oom_kills` when the script began, and after the death.
    """
    if signal_name not in SIGNALS:
        return None
    if signal_name == "SIGKILL" and before is not None and now is not None and now > before:
        return "the kernel killed the scheduler process for lack of memory (SIGKILL, and oom_kill rose)"
    return f"the scheduler process was ended from outside by {signal_name}"
