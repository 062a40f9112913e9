"""Where Hypothesis keeps its files while a command draws scripts: in the user's cache, not in the current folder."""

from __future__ import annotations

import os
import sys

# Hypothesis reads it when it first needs the folder.
_VARIABLE = "HYPOTHESIS_STORAGE_DIRECTORY"


def keep_current_folder_clean() -> None:
    """Say where Hypothesis may write, unless the user has, or it is in use already, as under pytest.

    Nothing is kept there that would be missed, so it does not matter where there is no cache: Hypothesis goes on.
    """
    if "hypothesis" in sys.modules or _VARIABLE in os.environ:
        return
    from sr_fuzz.script.errors import EngineError
    from sr_fuzz.sglang_api.releases import cache_folder

    try:
        folder = str(cache_folder() / "hypothesis")
    except EngineError:
        folder = os.path.join(os.devnull, "hypothesis")  # it cannot be made
    os.environ[_VARIABLE] = folder
