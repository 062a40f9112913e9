"""Source trees of SGLang with local changes: links to the installed package's files, except for those that differ."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from sr_fuzz.sglang_api.missing import MissingNames
from sr_fuzz.sglang_api.versions import installed_package

# A request that ends with its first token keeps its row: a plausible mistake.
FREE = "    tree_cache.req_to_token_pool.free(req)\n"
FREE_BUT_FOR_THE_FIRST = "    if len(req.output_ids) > 1:\n        tree_cache.req_to_token_pool.free(req)\n"

# A request is preempted by one whose priority is not higher.
ABOVE = "if priority_diff > self.priority_scheduling_preemption_threshold:"
BELOW = "if priority_diff < self.priority_scheduling_preemption_threshold:"


def checkout_with(folder: Path, module: str, right: str, wrong: str) -> Path:
    """A checkout of links to the installed package's files, with no ``_version.py`` and with a bug in one module."""
    package = folder / "python" / "sglang"
    shutil.copytree(
        installed_package(), package, copy_function=os.symlink, ignore=shutil.ignore_patterns("_version.py")
    )
    changed = package / module
    source = changed.read_text()
    assert source.count(right) == 1, f"this SGLang has other words in {module}"
    changed.unlink()
    changed.write_text(source.replace(right, wrong))
    return folder


def renamed(name: str) -> str:
    """Another name of the same kind: SGLang requires the endings of its message names."""
    if name[0].isupper():
        return f"Renamed{name}"
    return f"_renamed{name}" if name.startswith("_") else f"renamed_{name}"


def renamed_tree(folder: Path, *names: str) -> Path:
    """A package below ``folder`` in which those names are renamed everywhere."""
    package = folder / "sglang"
    shutil.copytree(installed_package(), package, copy_function=os.symlink)
    words = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for path in package.rglob("*.py"):
        text = path.read_text(errors="surrogateescape")
        if words.search(text):
            path.unlink()
            path.write_text(words.sub(lambda found: renamed(found[1]), text), errors="surrogateescape")
    return package


@contextmanager
def undeclared() -> Iterator[None]:
    """Leave no invariant out because the contract's table says so: only what is really read counts."""
    with patch.object(MissingNames, "unchecked", lambda self, invariant: None):
        yield
