"""Folders that do not outlive their owner for long: what a killed process has left is removed at the next start.

The owner holds a lock on a file in its folder (see `sr_fuzz.lifetime.locks`). So a folder whose name and user say that
it is ours, and whose lock is free, belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sr_fuzz.lifetime import locks

PREFIX = "sr-fuzz-own-"

SHARED_MEMORY = Path("/dev/shm")

_LOCK = "lock"
"""The file that the owner holds."""

_SEGMENTS = "shared-memory"
"""The file of a folder that lists shared memory of its owner, by name, with the inode: names are used again."""


class OwnedFolder:
    """A new private folder; it is removed by `remove`, or by `remove_leftovers` when its owner has ended."""

    def __init__(self, parent: Path | None = None) -> None:
        """``parent``: an existing folder; None for that of temporary files. Raises `OSError`."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = locks.hold(self.path / _LOCK)
        self._segments: dict[str, int] = {}

    def note_segments(self, names: Iterable[str]) -> None:
        """Note which shared memory goes with the folder.

        Where the disk takes no more, only the owner itself knows it: what `remove` does needs no file.
        """
        inodes = {name: _inode(SHARED_MEMORY / name) for name in names}
        self._segments = {name: inode for name, inode in inodes.items() if inode is not None}
        file = self.path / _SEGMENTS
        unfinished = file.with_suffix(".unfinished")
        with contextlib.suppress(OSError):
            unfinished.write_text(json.dumps(self._segments))
            unfinished.replace(file)

    def remove(self) -> None:
        """Remove the folder with its content, and the shared memory that was noted. Idempotent."""
        if self._lock >= 0:
            _unlink(self._segments)
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


@contextmanager
def owned_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new private folder while the context is active."""
    folder = OwnedFolder(parent)
    try:
        yield folder.path
    finally:
        folder.remove()


def remove_leftovers(parent: Path | None = None) -> None:
    """Remove the folders in ``parent`` whose owners have ended; None: in the folder of temporary files."""
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        try:
            state = path.lstat()
        except OSError:
            continue  # removed meanwhile
        if state.st_uid != os.geteuid() or path.is_symlink() or not path.is_dir():
            continue
        if locks.is_free(path / _LOCK):
            _remove(path)
        elif time.time() - state.st_mtime > _UNLOCKED_S:
            # Its owner was killed before it had a lock. With anything in it, it stays.
            with contextlib.suppress(OSError):
                path.rmdir()


# A process that is just being ended may still write into its folder.
_REMOVALS = 3

# Between making a folder and locking its file an owner needs a millisecond.
_UNLOCKED_S = 60.0


def _remove(folder: Path) -> None:
    """Remove a folder as far as that is possible; the next start tries again."""
    try:
        segments = json.loads((folder / _SEGMENTS).read_text()) if (folder / _SEGMENTS).is_file() else {}
    except (OSError, ValueError, RecursionError):
        segments = {}
    _unlink(segments if isinstance(segments, dict) else {})
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # an unpacked release is read-only
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _unlink(segments: dict[str, int]) -> None:
    for name, inode in segments.items():
        path = SHARED_MEMORY / name
        with contextlib.suppress(OSError, ValueError):  # ValueError: a zero byte in a name
            if path.parent == SHARED_MEMORY and _inode(path) == inode:
                path.unlink()


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
