"""A source tree of SGLang that is installed editable is the one that is played, under its own version."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_fuzz.outcome.files import load
from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, to_json
from tests.packaging.environments import install, make_environment, run
from tests.source_trees import FREE, FREE_BUT_FOR_THE_FIRST, checkout_with

ROOT = Path(__file__).parents[2]

VERSION = "0.5.24.dev3+gabc"

# All that an editable install needs. Setuptools makes a path file of it where the second table is there, otherwise an
# import hook, which comes after everything on the path.
PYPROJECT = f"""
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "sglang"
version = "{VERSION}"

[tool.setuptools]
packages = ["sglang"]
"""

BY_PATH = """
[tool.setuptools.package-dir]
"" = "."
"""


@pytest.fixture(scope="module", params=["a release beside it", "nothing beside it"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with sr_fuzz and a tree with a bug, both editable."""
    folder = tmp_path_factory.mktemp("editable")
    checkout = checkout_with(folder, "srt/mem_cache/common.py", FREE, FREE_BUT_FOR_THE_FIRST)
    alone = request.param == "nothing beside it"
    (checkout / "python" / "pyproject.toml").write_text(PYPROJECT if alone else PYPROJECT + BY_PATH)
    interpreter = make_environment(folder / "venv", without="sglang" if alone else None)
    install(interpreter, ROOT, editable=True)
    install(interpreter, checkout / "python", editable=True)
    return interpreter


def test_its_bug_is_found_under_its_version(python: Path, tmp_path: Path):
    """This holds although the tree has no ``_version.py``, and a release of SGLang may be on the path as well."""
    script, small = tmp_path / "script.json", tmp_path / "small.json"
    script.write_bytes(to_json(Script(EngineConfig(), (StartReq("r0", Prompt(0, 8), 1),))))
    ran = run(python, tmp_path, "-m", "sr_fuzz", "minimise", str(script), "--out", str(small))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = load(small).finding
    assert found.sglang_version == VERSION and "req_to_token_pool" in found.violation.message
    assert found.sglang_tree is None, "it is what is installed: no option leads to it"


def test_doctor_says_so(python: Path, tmp_path: Path):
    told = " ".join(run(python, tmp_path, "-m", "sr_fuzz", "doctor").stdout.split())
    assert f"{VERSION}, not tested" in told
