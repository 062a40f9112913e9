"""The contract with SGLang: read from the source of a tree, and complete for what the engines import."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from sr_fuzz.doctor.installation import check_contract
from sr_fuzz.script.errors import UnsupportedVersion
from sr_fuzz.sglang_api.contract import CONTRACT, check_seams, missing_rows
from sr_fuzz.sglang_api.source_names import SourceNames
from sr_fuzz.sglang_api.versions import installed_package

ROOT = Path(__file__).parents[2]

# Faults and fixes name what they patch themselves, and say so when it is not there.
NAMED_BY_THEMSELVES = ROOT / "sr_fuzz" / "faults"


def imported() -> dict[tuple[str, str], str]:
    """What the package imports from SGLang, by module and name, with the file that does."""
    found = {}
    for path in sorted((ROOT / "sr_fuzz").rglob("*.py")):
        if path.is_relative_to(NAMED_BY_THEMSELVES):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglang."):
                module = node.module.removeprefix("sglang.")
                found |= {(module, alias.name): str(path.relative_to(ROOT)) for alias in node.names}
    return found


def test_every_name_that_is_imported_is_in_it():
    classes = {(row.module, name.partition(".")[0]) for row in CONTRACT for name in row.names}
    modules = {(package, name) for package, _, name in (row.module.rpartition(".") for row in CONTRACT)}
    unnamed = {f"{module}: {name} ({file})" for (module, name), file in imported().items()
               if (module, name) not in classes | modules}  # fmt: skip
    assert not unnamed


def test_the_installed_sglang_keeps_it():
    assert missing_rows(installed_package()) == ()
    assert check_contract([]).ok


def linked(folder: Path, changed: str, old: str, new: str) -> Path:
    """The installed package as links, in which one file, by its path, says ``new`` for ``old``."""
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
    assert not check.required and "Req.retraction_count not checked: retraction, chunks, priority" in check.how


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
