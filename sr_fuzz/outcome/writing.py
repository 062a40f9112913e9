"""Files that are written whole or not at all, also on a full disk and when the process is killed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

# The process that writes it is part of the name, so that two never share one, and that what a killed one left is known.
_UNFINISHED = re.compile(r"\.(?P<file>.+)\.(?P<pid>\d+)\.unfinished")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: an error, such as a full disk, leaves an existing file unchanged. Raises `OSError`."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a device or a pipe, such as /dev/stdout, which must not be replaced by a file
        return
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all are complete on the disk before the first one gets its name.

    So an error leaves existing files unchanged, all of them. They get their names in the order given; only a process
    that is killed between two of these renamings leaves the first without the second. Raises `OSError`, which names
    the file.
    """
    # The target of a link is replaced, not the link.
    unfinished = {path.resolve(): _unfinished(path.resolve()) for path in files}
    target = next(iter(unfinished))
    try:
        for (target, temporary), data in zip(unfinished.items(), files.values(), strict=True):
            temporary.write_bytes(data)
        for target, temporary in unfinished.items():
            temporary.replace(target)
    except OSError as error:
        for temporary in unfinished.values():
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from None


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.unfinished")


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in ``folder``. Raises `OSError`."""
    for path in folder.glob(".*.unfinished"):
        match = _UNFINISHED.fullmatch(path.name)
        if match is not None and not psutil.pid_exists(int(match["pid"])):
            path.unlink(missing_ok=True)
