"""Locks that the kernel frees when their owner ends, however it does.

So a file whose lock is free belongs to nobody any more. Process ids would not prove that: they are used again, and mean
nothing in another container that sees the same folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def hold(path: Path, mode: int = 0o600) -> int:
    """Make the file ``path`` if needed, and lock it; returns the descriptor that keeps the lock. Raises `OSError`.

    ``mode``: that of a new file, less what the process masks.

    The file is opened for writing, since only then NFS passes the lock on to its other clients.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except BaseException:
        os.close(lock)
        raise
    return lock


def try_hold(path: Path) -> int | None:
    """Lock a file as `hold` does, unless somebody holds it: then return None. Raises `OSError`."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine out while the context is active. Nothing is written into the folder.

    Where a folder cannot be locked, as on NFS, nobody is kept out. Raises `OSError` where there is no such folder.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_free(path: Path) -> bool:
    """Whether nobody holds the file; False also where it cannot be asked, and where there is no such file."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
