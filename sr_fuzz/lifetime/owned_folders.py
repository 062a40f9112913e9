"""Folders that do not outlive their owner for long: what a killed process has left is removed at the next start.

The owner holds a lock on its folder, which the kernel frees when the owner ends, however it does. So a folder whose
name and user say that it is ours, and whose lock is free, belongs to nobody any more. Process ids would not prove that:
they are used again, and mean nothing in another container that sees the same folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "sr-fuzz-own-"

SHARED_MEMORY = Path("/dev/shm")

_SEGMENTS = "shared-memory"
"""The file of a folder that lists shared memory of its owner, by name, with the inode: names are used again."""


class OwnedFolder:
    """A new private folder; it is removed by `remove`, or by `remove_leftovers` when its owner has ended."""

    def __init__(self, parent: Path | None = None) -> None:
        """``parent``: an existing folder; None for that of temporary files. Raises `OSError`."""
        self.path, self._lock = _make(parent)

    def note_segments(self, names: Iterable[str]) -> None:
        """Note which shared memory goes with the folder."""
        inodes = {name: _inode(SHARED_MEMORY / name) for name in names}
        file = self.path / _SEGMENTS
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({name: inode for name, inode in inodes.items() if inode is not None}))
        unfinished.replace(file)

    def remove(self) -> None:
        """Remove the folder with its content, and the shared memory that was noted. Idempotent."""
        if self._lock >= 0:
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
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # no folder, somebody else's, or removed meanwhile
        try:
            if os.fstat(lock).st_uid == os.geteuid() and _is_free(lock):
                _remove(path)
        finally:
            os.close(lock)


def _make(parent: Path | None) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _inode(path) == os.fstat(lock).st_ino:
            return path, lock
        # Another process, which looked for leftovers, saw it before it was locked.
        os.close(lock)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    try:
        segments = json.loads((folder / _SEGMENTS).read_text())
    except (OSError, ValueError):
        segments = {}
    for name, inode in segments.items():
        if _inode(SHARED_MEMORY / name) == inode:
            (SHARED_MEMORY / name).unlink(missing_ok=True)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # an unpacked release is read-only
    shutil.rmtree(folder, ignore_errors=True)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
