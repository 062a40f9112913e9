"""Files that are written whole or not at all, also on a full disk and when the process is killed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from sr_fuzz.lifetime import locks

_SUFFIX = "unfinished"
_NAME = re.compile(rf"\..+\.[0-9a-f]{{8}}\.{_SUFFIX}")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: an error, such as a full disk, leaves an existing file unchanged. Raises `OSError`."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a device or a pipe, such as /dev/stdout, which must not be replaced by a file
        return
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: the data of all of them is written before the first one gets its name.

    So a full disk leaves existing files unchanged, all of them. They get their names in the order given; a process that
    is killed between two of these renamings leaves the first without the second. Raises `OSError`, which names a file.
    """
    # The target of a link is replaced, not the link.
    targets = {Path(os.path.realpath(path)): data for path, data in files.items()}
    written: dict[Path, Path] = {}
    target = next(iter(targets))
    with contextlib.ExitStack() as held:
        try:
            for target, data in targets.items():
                temporary = written[target] = target.with_name(f".{target.name}.{secrets.token_hex(4)}.{_SUFFIX}")
                held.callback(os.close, locks.hold(temporary, 0o666))
                temporary.write_bytes(data)
            for target, temporary in written.items():
                temporary.replace(target)
        except OSError as error:
            for temporary in written.values():
                temporary.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(target)) from None


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in ``folder``. Raises `OSError`."""
    for path in folder.glob(f".*.{_SUFFIX}"):
        if _NAME.fullmatch(path.name) and locks.is_free(path):
            path.unlink(missing_ok=True)
