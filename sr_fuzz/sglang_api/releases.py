"""Other releases of SGLang, beside the installed one: each unpacked once into a cache, and read-only from then on.

A wheel file is unpacked there as well. An engine gets such a folder as the first one on its processes' path; the
environment stays as it is. SGLang's packages come from the environment all the same: what one release needs does for
its neighbours (see `sr_fuzz.sglang_api.versions`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sr_fuzz.script.errors import EngineError

# A wheel is 14 to 39 MB; a slow line may take minutes for it.
_DOWNLOAD_S = 600.0


def cache_folder() -> Path:
    """``sr-fuzz`` in the user's cache (``XDG_CACHE_HOME``, or ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sr-fuzz"


def release_folder(version: str) -> Path:
    """The folder that holds SGLang ``version``, unpacked now if it is not there yet.

    Raises `EngineError` when it cannot be had.
    """
    return _unpacked(cache_folder() / f"sglang-{version}", f"SGLang {version}", f"sglang=={version}")


def wheel_folder(wheel: Path, digest: str) -> Path:
    """The folder that holds what is in ``wheel``, unpacked now if one of that ``digest`` is not there yet.

    Raises `EngineError` when it cannot be unpacked, or holds no ``sglang``.
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
        # Beside its final place, and moved there whole: two processes may want the same release at once.
        staging = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise EngineError(f"{name} cannot be unpacked in {folder.parent}: {error.strerror}") from None
    try:
        _install(staging, name, requirement)
        for path in [*staging.rglob("*"), staging]:
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            staging.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        if staging.is_dir():
            _remove(staging)


def _install(folder: Path, name: str, requirement: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps"]
    # Compiled now: nobody can write there later, and each configuration's process would compile what it imports.
    command += ["--only-binary", ":all:", "--compile", "--target", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_S)
    except subprocess.TimeoutExpired:
        raise EngineError(f"{name} could not be downloaded within {_DOWNLOAD_S:g} s") from None
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        raise EngineError(f"{name} cannot be had: {told[-1].removeprefix('ERROR: ')}")


def _remove(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)
