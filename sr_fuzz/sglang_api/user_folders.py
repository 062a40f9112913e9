"""The folders of the user into which SGLang and this project write: a home folder, and caches in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sr_fuzz.script.errors import EngineError


def home_folder() -> Path:
    """Return the user's home folder. Raises `EngineError`, one line that says what to do, where there is none."""
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise EngineError(
            "there is no home folder: HOME is not set, and the password file has no entry for this user; "
            "set HOME to a folder that can be written to"
        )
    return Path(home)


def sglang_cache() -> Path:
    """Return the folder in which SGLang makes its caches when it is imported. Raises `EngineError`; see above."""
    # It is asked for even where SGLang would not need it: some of its libraries make a folder that is called ~ instead.
    home = home_folder()
    named = os.environ.get("SGLANG_CACHE_DIR")
    return Path(named).expanduser() if named else home / ".cache" / "sglang"


def why_no_cache() -> str | None:
    """Return, in one line that says what to do, why SGLang could not make its caches; None if it can."""
    try:
        folder = sglang_cache()
        if folder.is_dir():
            return None  # what it needs may be there already
        nearest = next(each for each in folder.parents if each.exists())
        # Tried, because neither permissions nor mount options tell all: a home may lie on a disk that is full.
        with tempfile.TemporaryDirectory(prefix=".sr-fuzz-", dir=nearest):
            return None
    except EngineError as error:
        return str(error)
    except OSError as error:
        return (
            f"SGLang cannot be imported: it makes caches in {folder}, which cannot be written to ({error.strerror}); "
            "set HOME to a folder that can be written to"
        )
