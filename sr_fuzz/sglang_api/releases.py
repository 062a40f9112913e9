"""Other releases of SGLang, besides the installed one: each is unpacked once into a read-only cache folder.

A wheel file is unpacked there as well. Such a folder becomes the first one on the path of an engine's processes; the
environment is not changed. SGLang's dependencies still come from the environment: those of one release also work for
the neighbouring releases (see `sr_fuzz.sglang_api.versions`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sr_fuzz.lifetime import with_parent
from sr_fuzz.lifetime.owned_folders import OwnedFolder, remove_leftovers
from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.user_folders import home_folder

# A wheel has 14 to 39 MB; a slow connection may take minutes.
_DOWNLOAD_S = 600.0

_PACKAGE = "package"
"""Subfolder that is unpacked into, beside pip's temporary files."""


def cache_folder() -> Path:
    """Return the folder ``sr-fuzz`` in the user's cache: ``XDG_CACHE_HOME``, or ``~/.cache``.

    As the XDG base directory specification says, a relative ``XDG_CACHE_HOME`` counts as unset. Raises `EngineError`
    where there is no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else home_folder() / ".cache") / "sr-fuzz"


def remove_unfinished() -> None:
    """Remove what downloads that were killed have left in the cache."""
    try:
        folder = cache_folder()
    except EngineError:
        return  # a user without a home has no cache
    if folder.is_dir():
        remove_leftovers(folder)


def release_folder(version: str) -> Path:
    """Return the folder of SGLang ``version``, which is downloaded and unpacked if needed.

    Raises `EngineError` when that fails.
    """
    return _unpacked(cache_folder() / f"sglang-{version}", f"SGLang {version}", f"sglang=={version}")


def wheel_folder(wheel: Path, digest: str) -> Path:
    """Return the folder with the content of ``wheel``, unpacked now if there is none with that ``digest``.

    Raises `EngineError` when it cannot be unpacked, or contains no ``sglang``.
    """
    folder = _unpacked(cache_folder() / f"wheel-{digest}", str(wheel), str(wheel))
    if not (folder / "sglang" / "srt" / "managers" / "scheduler.py").is_file():
        raise EngineError(f"{wheel}: no wheel of SGLang: there is no sglang/srt/managers/scheduler.py in it")
    return folder


def _unpacked(folder: Path, name: str, requirement: str) -> Path:
    if not folder.is_dir():
        _unpack(folder, name, requirement)
    return folder


def _unpack(folder: Path, name: str, requirement: str) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Unpacked beside its final place and moved there atomically: two processes may need the same release at once.
        staging = OwnedFolder(folder.parent)
    except OSError as error:
        todo = "set XDG_CACHE_HOME to a folder that can be written to"
        raise EngineError(f"{name} cannot be unpacked in {folder.parent}: {error.strerror}; {todo}") from None
    try:
        _install(staging.path, name, requirement)
        package = staging.path / _PACKAGE
        for path in package.rglob("*"):
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            package.rename(folder)
            folder.chmod(folder.stat().st_mode & ~0o222)  # not before: a read-only folder cannot be moved
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        staging.remove()


def _install(staging: Path, name: str, requirement: str) -> None:
    pip = ["-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps"]
    # Compiled now, because the folder is read-only later, and each configuration process would compile its imports.
    pip += ["--only-binary", ":all:", "--compile", "--target", str(staging / _PACKAGE), requirement]
    temporary = staging / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    try:
        done = subprocess.run(
            with_parent.command(*pip), capture_output=True, text=True, errors="replace", timeout=_DOWNLOAD_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{name} could not be downloaded within {_DOWNLOAD_S:g} s") from None
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        raise EngineError(f"{name} cannot be had: {told[-1].removeprefix('ERROR: ')}")

