"""The contract with SGLang: read from the source of a tree, and complete for what the engines import."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sr_fuzz.doctor.installation import check_contract
from sr_fuzz.faults.names import fault_rows
from sr_fuzz.script.errors import EngineError, UnsupportedVersion
from sr_fuzz.sglang_api.contract import check_seams, missing_rows, unreadable
from sr_fuzz.sglang_api.contract_table import CONTRACT
from sr_fuzz.sglang_api.source_names import SourceNames, attributes
from sr_fuzz.sglang_api.versions import installed_package, version_in

ROOT = Path(__file__).parents[2]

# All code that may know SGLang by name; the engines, the view and the invariants use what `sglang_api` provides.
MAY_IMPORT = tuple(
    ROOT / "sr_fuzz" / room for room in ("sglang_api", "cpu", "oracle", "faults/catalogue", "faults/fixes")
)

PACKAGES = (ROOT / "sr_fuzz", ROOT / "strategies", ROOT / "invariants")


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            yield path, ast.parse(path.read_text())


def knows_sglang(path: Path) -> bool:
    return any(path.is_relative_to(room) for room in MAY_IMPORT)


def imports_of_sglang(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module below ``sglang`` and name; the name is empty for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and f"{node.module}.".startswith("sglang."):
            module = node.module.removeprefix("sglang").lstrip(".")
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names if f"{alias.name}.".startswith("sglang."))
            yield from ((name.removeprefix("sglang").lstrip("."), "") for name in names)


def test_sglang_is_imported_in_few_rooms_alone():
    assert not [str(path) for path, tree in sources() if not knows_sglang(path) and any(imports_of_sglang(tree))]


# Names of the standard library, with an underscore only because no name of a field may collide.
PUBLIC = {"_exit", "_getframe", "_fields", "_replace"}


def private_of_others(path: Path, own: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            if node.attr not in own | PUBLIC:
                yield f"{path.name}:{node.lineno}: {ast.unparse(node)}"


def names_of_ours() -> set[str]:
    """Names of the attributes and methods of this package's own classes."""
    found: set[str] = set()
    for _, tree in sources():
        for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            found |= attributes(cls)
    return found


def test_what_sglang_keeps_private_is_read_in_few_rooms_alone():
    own = names_of_ours()
    assert not [read for path, _ in sources() if not knows_sglang(path) for read in private_of_others(path, own)]


def test_a_private_name_would_be_seen(tmp_path: Path):
    (tmp_path / "reader.py").write_text("def paused(scheduler):\n    return scheduler._engine_paused\n")
    assert list(private_of_others(tmp_path / "reader.py", {"_own"})) == ["reader.py:2: scheduler._engine_paused"]


def test_every_name_that_is_imported_is_in_it():
    rows = (*CONTRACT, *fault_rows())
    known = {(row.module, name.partition(".")[0]) for row in rows for name in row.names}
    modules = {tuple(row.module.rpartition(".")[::2]) for row in rows} | {(row.module, "") for row in rows}
    unnamed = {f"{module}: {name} ({path.relative_to(ROOT)})" for path, tree in sources()
               for module, name in imports_of_sglang(tree)
               if module and (module, name) not in known | modules}  # fmt: skip
    assert not unnamed


# Where SGLang's objects are read.
READERS = [
    *(ROOT / "sr_fuzz" / "sglang_api" / f"{name}.py" for name in (
        "allocators", "incoming", "node_handles", "outputs", "request_state", "requests", "scheduler_facts",
        "scheduler_state", "speculation", "trees",
    )),
    *sorted((ROOT / "sr_fuzz" / "view").glob("*.py")),
]  # fmt: skip

# Of Python, its library, torch and ours: attributes that are no names of SGLang.
OTHERS = {
    "__name__", "__module__", "append", "compile", "extend", "fields", "fromkeys", "get", "items", "keys", "kv",
    "lower", "message", "name", "obj", "parameters", "partial", "pop", "raw", "setdefault", "shape", "signature",
    "size", "startswith", "sub", "tokens", "tolist", "update", "values",
}  # fmt: skip

# What some releases have and others do not, so that its absence says nothing; each is read beside a name that is a row.
BY_RELEASE = {
    "cache", "component_lock_uuids", "dllm_config", "enable_lora", "enable_lora_overlap_loading", "free_page_ids_group",
    "free_page_reps_group", "hicache_storage_backend", "inner", "is_not_in_free_group", "kv_private_swa_tokens",
    "lock_params", "lock_receipt", "mamba_ckpt_pool", "mamba_ping_pong_track_buffer_size", "node_id",
    "ongoing_load_back", "pp_async_batch_depth", "sanity_check", "skipped_lock_components",
    "speculative_num_draft_tokens", "swa_free_group", "swa_page_ids_group", "swa_prefix_lock_released",
    "swa_uuid_for_lock", "_node_arena", "all_values_flatten", "walk_for_kv_canary", "slot_indices",
}  # fmt: skip

# Parts of a node's data: the row is `UnifiedTreeNode.component_data`, or `RadixCache` of releases that have no other.
OF_A_NODE = {"lock_ref", "metadata", "value", "hit_count"}


def attributes_read(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            if isinstance(node.args[1], ast.Constant):
                yield str(node.args[1].value)


def test_every_attribute_that_is_read_is_in_it():
    rows = {name.rpartition(".")[2] for row in CONTRACT for name in row.names}
    ours = (node for _, tree in sources() for node in ast.walk(tree))
    functions = {node.name for node in ours if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    known = rows | names_of_ours() | functions | OTHERS | BY_RELEASE | OF_A_NODE
    unnamed = {f"{path.name}: {name}" for path in READERS for name in attributes_read(path) if name not in known}
    assert not unnamed


def test_the_installed_sglang_keeps_it():
    assert missing_rows(installed_package()) == ()
    assert missing_rows(installed_package(), fault_rows(version_in(installed_package()))) == ()
    assert check_contract([]).ok


def linked(folder: Path, changed: str, old: str, new: str) -> Path:
    """The installed package as links, in which one file, given by its path, has ``new`` in place of ``old``."""
    here, there = folder / "sglang", installed_package()
    for part in Path(changed).parts:
        here.mkdir()
        for entry in there.iterdir():
            if entry.name != part:
                os.symlink(entry, here / entry.name)
        here, there = here / part, there / part
    assert old in there.read_text()
    here.write_text(there.read_text().replace(old, new))
    return folder / "sglang"


@pytest.mark.parametrize(
    ("changed", "old", "named"),
    [
        ("srt/managers/scheduler.py", "maybe_init_scripted_scheduler_hook", "maybe_init_scripted_scheduler_hook"),
        ("srt/managers/io_struct.py", "finished_reasons", "BatchTokenIDOutput.finished_reasons"),
    ],
)
def test_a_seam_that_is_missing_is_named_in_one_line(tmp_path: Path, changed: str, old: str, named: str):
    package = linked(tmp_path, changed, old, f"{old}_renamed")
    with pytest.raises(UnsupportedVersion) as refused:
        check_seams(package)
    message = str(refused.value)
    assert f"{named} is missing" in message and str(tmp_path) in message and "\n" not in message
    check = check_contract(missing_rows(package))
    assert check.required and not check.ok and named in check.found


def test_any_other_name_that_is_missing_costs_what_depends_on_it(tmp_path: Path):
    package = linked(tmp_path, "srt/managers/schedule_batch.py", "self.retraction_count", "self.times_retracted")
    check_seams(package)
    [row] = missing_rows(package)
    check = check_contract([row])
    assert not check.required
    assert check.how.startswith("this SGLang has no Req.retraction_count; not checked: retraction, chunks, priority")


def test_a_file_that_is_no_python_is_named_and_nothing_else_is_said_of_it(tmp_path: Path):
    """Its names are not missing from SGLang."""
    package = linked(tmp_path, "srt/managers/scheduler.py", "class Scheduler(", "class Scheduler((")
    with pytest.raises(EngineError) as refused:
        check_seams(package)
    assert str(refused.value).startswith("cannot import SGLang: SyntaxError: ")
    assert "srt/managers/scheduler.py:" in str(refused.value) and "missing" not in str(refused.value)
    check = check_contract(missing_rows(package), unreadable(package))
    assert check.required and not check.ok and "SyntaxError" in check.found and not check.how


# -- reading names from source ---------------------------------------------------------------------------------

BASE = """
class Base:
    limit: int = 3

    def __init__(self):
        self.left, self.right = 1, 2
"""

MODULE = """
import time
from sglang.a.base import Base as Parent

try:
    from x import one
except ImportError:
    one = None

if True:
    class Child(Parent):
        @property
        def size(self):
            self.seen: bool = True
            self.other.field = 1

TABLE: dict = {}
"""


@pytest.fixture
def source(tmp_path: Path) -> SourceNames:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "base.py").write_text(BASE)
    (tmp_path / "a" / "module.py").write_text(MODULE)
    (tmp_path / "a" / "broken.py").write_text("def (")
    (tmp_path / "a" / "deep" / "__init__.py").write_text("x = 1\n")
    return SourceNames(tmp_path)


@pytest.mark.parametrize(
    "name", ["time", "one", "TABLE", "Child", "Child.size", "Child.seen", "Child.limit", "Child.left", "Child.right"]
)
def test_a_name_is_found(source: SourceNames, name: str):
    assert source.has("a.module", name)


@pytest.mark.parametrize("name", ["two", "Child.field", "Child.other", "Parent.size", "None.size"])
def test_a_name_is_not_found(source: SourceNames, name: str):
    assert not source.has("a.module", name)


def test_modules(source: SourceNames):
    assert source.has("a.deep", "") and source.has("a.deep", "x")
    assert not source.has("a.nothing", "") and not source.has("a.broken", "x")
