"""A source tree of SGLang in which names are called otherwise, everywhere: as after somebody's refactoring."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from sr_fuzz.sglang_api.versions import installed_package

SUFFIX = "_renamed"


def renamed_tree(folder: Path, *names: str) -> Path:
    """The package below ``folder``: links to the installed one's files, and those that change."""
    package = folder / "sglang"
    shutil.copytree(installed_package(), package, copy_function=os.symlink)
    words = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for path in package.rglob("*.py"):
        text = path.read_text(errors="surrogateescape")
        if words.search(text):
            path.unlink()
            path.write_text(words.sub(rf"\1{SUFFIX}", text), errors="surrogateescape")
    return package
