"""The list of patches is complete: it is compared with the source of the code that patches."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sr_fuzz.sglang_api.patches import PATCHES

PACKAGE = Path(__file__).parents[2] / "sr_fuzz"

ROOMS = ("cpu", "sglang_api", "engine", "oracle", "runtime")
"""Faults and fixes patch on purpose; the rooms of higher layers run in no engine's process."""

# Attributes of objects that the function itself has created, or of our own objects.
OWN = {
    "sr_fuzz/cpu/missing_kernels.py": {"clamp_position", "clamp_position_cuda"},
    "sr_fuzz/cpu/missing_modules.py": {"__spec__"},
    "sr_fuzz/cpu/transfer.py": {"NixlKVBootstrapServer"},
    "sr_fuzz/cpu/pinned_memory.py": {"pinned"},
    "sr_fuzz/cpu/import_hook.py": {"loader"},
    "sr_fuzz/runtime/http_poster.py": {"body"},
    "sr_fuzz/runtime/http_transport.py": {"on_step"},
    "sr_fuzz/runtime/transport.py": {"on_step"},
    "sr_fuzz/engine/live/dispatch.py": {"on_step"},
    "sr_fuzz/engine/local/config_process.py": {"on_step"},
    "sr_fuzz/engine/upstream/runner.py": {"ScriptedTestCase"},
    "sr_fuzz/sglang_api/own_runtime.py": {"_shared_memory", "_socket", "_shutdown_done"},
    "sr_fuzz/sglang_api/seams.py": {"scripted_scheduler_hook"},
}


def assigned(tree: ast.AST) -> Iterator[str]:
    """Attributes of objects other than ``self`` that are assigned, and names in calls of ``patch.object``."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value).partition(".")[0] not in ("self", "cls"):
                yield target.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "patch.object":
            name = node.args[1]
            if isinstance(name, ast.Constant):
                yield str(name.value)


def patched_in(path: Path) -> set[str]:
    file = str(path.relative_to(PACKAGE.parent))
    return set(assigned(ast.parse(path.read_text()))) - OWN.get(file, set())


FILES = sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("path", [path for path in FILES if patched_in(path)], ids=lambda path: path.stem)
def test_every_patch_is_listed(path: Path):
    file = str(path.relative_to(PACKAGE).with_suffix(""))
    listed = " ".join(patch.names for patch in PATCHES if patch.file == file)
    assert {name for name in patched_in(path) if name not in listed} == set()


def test_every_file_that_is_listed_is_there():
    assert {patch.file for patch in PATCHES} <= {str(path.relative_to(PACKAGE).with_suffix("")) for path in FILES}
