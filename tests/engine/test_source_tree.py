"""SGLang as a source tree with changes of its own: played as it is, under a version that is its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sr_fuzz import cli
from sr_fuzz.outcome.files import load
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, to_json
from sr_fuzz.sglang_api.versions import installed_package

# A row is kept by a request that ends with its first token, as somebody might write it by mistake.
_FREE = "    tree_cache.req_to_token_pool.free(req)\n"
_FREE_BUT_FOR_THE_FIRST = "    if len(req.output_ids) > 1:\n        tree_cache.req_to_token_pool.free(req)\n"

ONE_TOKEN = Script(EngineConfig(), (StartReq("r0", Prompt(0, 8), 1),))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout, of links to the installed package's files: no ``_version.py``, and a bug in one file."""
    installed = installed_package()
    checkout = tmp_path_factory.mktemp("checkout")
    package = checkout / "python" / "sglang"
    shutil.copytree(installed, package, copy_function=os.symlink, ignore=shutil.ignore_patterns("_version.py"))
    changed = package / "srt" / "mem_cache" / "common.py"
    source = changed.read_text()
    assert source.count(_FREE) == 1, "this SGLang frees rows elsewhere"
    changed.unlink()
    changed.write_text(source.replace(_FREE, _FREE_BUT_FOR_THE_FIRST))
    return checkout


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_bytes(to_json(ONE_TOKEN))
    return path


def named(tree: Path, version: str | None) -> str:
    """Let the tree say its version, or not; what it is then called."""
    beside = tree / "python" / "sglang" / "_version.py"
    beside.unlink(missing_ok=True)
    if version is None:
        return f"unknown (tree {tree / 'python'})"
    beside.write_text(f"__version__ = version = {version!r}\n")
    return version


def test_its_bug_shows_in_a_replay(tree: Path, script: Path, capsys):
    name = named(tree, None)
    assert cli.main(["replay", str(script), "--sglang", str(tree)]) == 1
    told = capsys.readouterr()
    assert "req_to_token_pool" in told.out, "what SGLang's own check says of a row that is not free"
    assert f"warning: SGLang {name}: this sr_fuzz was tested with 0.5.16 to 0.5.23" in told.err


def test_a_finding_carries_the_name_of_the_tree(tree: Path, script: Path, tmp_path: Path):
    name, small = named(tree, "0.5.24.dev3+gabc"), tmp_path / "small.json"
    assert cli.main(["minimise", str(script), "--sglang", str(tree / "python"), "--out", str(small)]) == 0
    found = load(small).finding
    assert found.sglang_version == name and "req_to_token_pool" in found.violation.message


def test_what_is_installed_has_no_such_bug(sr_engine):
    assert sr_engine.run(ONE_TOKEN).ok
