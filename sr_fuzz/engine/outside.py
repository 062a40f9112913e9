"""Whether a process was ended by something outside of SGLang: a signal that it does not send itself, or lack of memory.

The kernel's out-of-memory killer sends SIGKILL and leaves no message; how often it has struck in this control group
says whether it was the one.
"""

from __future__ import annotations

from pathlib import Path

SIGNALS = ("SIGKILL", "SIGTERM")
"""No part of SGLang ends a scheduler with one of these while a script is played."""

_MOUNT = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")


def oom_kills(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int | None:
    """How many processes of this control group the kernel has killed for lack of memory; None where it does not say.

    ``groups``: the list of this process's control groups (``HIERARCHY:CONTROLLERS:PATH`` a line); ``mount``: where
    they are mounted. Version 2 counts in ``memory.events``, version 1 in ``memory.oom_control`` below ``memory``.
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
        # In a namespace of its own the group is the root of what is mounted, whatever its path is outside.
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


def why_killed(signal_name: str, before: int | None, now: int | None) -> str | None:
    """One line where a death by that signal says nothing about SGLang; None where it does.

    ``before``, ``now``: `oom_kills` when the script began, and after the death.
    """
    if signal_name not in SIGNALS:
        return None
    if signal_name == "SIGKILL" and before is not None and now is not None and now > before:
        return "the kernel killed the scheduler process for lack of memory (SIGKILL; oom_kill rose): give it more memory"
    return f"the scheduler process was ended from outside by {signal_name}"
