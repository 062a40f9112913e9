"""The sources that ``--sglang`` accepts: a release, a wheel, or a source tree, which may have local changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

from sr_fuzz.script.errors import EngineError
from sr_fuzz.sglang_api.releases import cache_folder, release_folder, wheel_folder
from sr_fuzz.sglang_api.versions import imported_package, version_in

_SHOWN = 200
"""Number of characters of a source that an error quotes."""

_SCHEDULER = Path("srt", "managers", "scheduler.py")
"""A file by which the package ``sglang`` is recognised."""


def sglang_folder(source: str) -> Path:
    """Return the folder that must be first on an engine's path, so that ``import sglang`` finds that source.

    ``source``: a version such as ``0.5.20``, fetched once; a wheel file; or a folder: a checkout of SGLang, its
    ``python`` folder, or the package itself. Raises `EngineError`, one line, for anything else.
    """
    shown = source if len(source) <= _SHOWN else f"{source[:_SHOWN]}…"
    if not source.strip():
        raise EngineError(f"SGLang {source!r}: expected a version such as 0.5.20, a source tree or a wheel")
    try:
        path = Path(source).expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        # No such user, or a name that is too long or contains a zero byte.
        raise EngineError(f"SGLang {shown!r}: {error.args[-1] if error.args else error}") from None
    if is_folder:
        # Links are not resolved: the target of a link called sglang may have another name.
        return _tree_folder(path.absolute())
    if path.suffix == ".whl":
        return _wheel(path)
    try:
        return release_folder(str(Version(source)))
    except ValueError:
        raise EngineError(
            f"{shown}: no version of SGLang such as 0.5.20, and there is no such folder; expected a tree or a wheel"
        ) from None


def fingerprint(folder: Path) -> str:
    """Return what changes when a file of the package in a folder for an engine's path is edited: a digest."""
    digest = hashlib.sha256()
    for path in sorted((folder / "sglang").rglob("*.py")):
        try:
            state = path.stat()
        except OSError:
            continue  # a link to nothing, or removed meanwhile
        digest.update(f"{path.relative_to(folder)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()[:16]


def has_rust_tree_core(package: Path) -> bool:
    """Whether it has the compiled tree core. Wheels from 0.5.19 on have one, a checkout only if it was built there."""
    return any(package.joinpath("srt", "mem_cache", "rust_tree_core").glob("*.so"))


def tree_on(path: Sequence[str]) -> str | None:
    """Return the source tree of SGLang that an engine with these folders first on its path imports.

    The result is a value for ``--sglang``. It is None for the installed SGLang, and for a release or a wheel, which any
    user can get.
    """
    folder = next((Path(folder) for folder in path if (Path(folder) / "sglang" / _SCHEDULER).is_file()), None)
    return None if folder is None or folder.is_relative_to(cache_folder()) else str(folder)


def wheel_on(path: Sequence[str]) -> str | None:
    """Return the folder of an unpacked wheel that an engine with these folders first on its path imports, if it is one.
    """
    folder = Path(path[0]) if path else None
    is_wheel = folder is not None and folder.parent == cache_folder() and folder.name.startswith("wheel-")
    return str(folder) if is_wheel else None


def release_on(path: Sequence[str]) -> str | None:
    """Return the release that an engine with these folders first on its path imports: a fetched or the installed one.

    None for a source tree, a wheel, or a version that is no release's.
    """
    package = imported_package(path)
    if package is None or tree_on(path) is not None or wheel_on(path) is not None:
        return None
    version = version_in(package)
    try:
        return version if not Version(version).local and not Version(version).is_devrelease else None
    except ValueError:
        return None


def _tree_folder(path: Path) -> Path:
    for package in (path / "python" / "sglang", path / "sglang", path):
        if package.name == "sglang" and (package / "__init__.py").is_file() and (package / _SCHEDULER).is_file():
            return package.parent
    raise EngineError(
        f"{path}: no source tree of SGLang: there is no python/sglang, sglang or {_SCHEDULER} in it"
    )


def _wheel(path: Path) -> Path:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror}") from None
    return wheel_folder(path.resolve(), digest)
