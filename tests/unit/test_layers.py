"""The rooms and their layers: which room may import which, in the package as it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = (
    "cli", "doctor", "testing", "report", "campaign", "emit", "shrink", "strategies", "engine", "bugs", "faults",
    "play", "invariants", "view", "runtime", "cpu", "oracle", "sglang_api", "outcome", "script", "lifetime",
)  # fmt: skip
"""From the top: each room may import those after it here, none before it. ARCHITECTURE.md says what each is for."""

# An engine's processes, and code that only describes and checks, must not import a test framework.
NO_TEST_FRAMEWORK = tuple(LAYERS[LAYERS.index("engine") :])

CONTRACTS = f"""
[importlinter]
root_package = sr_fuzz
include_external_packages = True

[importlinter:contract:layers]
name = each room imports only rooms of lower layers
type = layers
containers = sr_fuzz
exhaustive = True
layers =
    __main__
{"".join(f"    {room}{chr(10)}" for room in LAYERS)}

[importlinter:contract:cycles]
name = no cycle within a room, imports for types included
type = acyclic_siblings
ancestors = sr_fuzz

[importlinter:contract:strategies]
name = a strategy never sees an engine, a view or SGLang
type = forbidden
source_modules = sr_fuzz.strategies
forbidden_modules =
    sr_fuzz.engine
    sr_fuzz.play
    sr_fuzz.view
    sr_fuzz.runtime
    sr_fuzz.sglang_api
    sglang

[importlinter:contract:frameworks]
name = neither Hypothesis nor pytest below the strategies
type = forbidden
source_modules =
{"".join(f"    sr_fuzz.{room}{chr(10)}" for room in NO_TEST_FRAMEWORK)}
forbidden_modules =
    hypothesis
    pytest
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a plain copy: in a checkout the mapped packages are elsewhere, and tools miss
    them."""
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps",
               "--no-build-isolation", "--target", str(folder)]  # fmt: skip
    source = folder.parent / "source"
    # Installed from a copy, since a build writes into the tree.
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if name.split("/")[0] in ("sr_fuzz", "strategies", "invariants", "setup.py", "pyproject.toml", "README.md"):
            if not (ROOT / name).is_file():
                continue  # deleted, and not committed yet
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([*install, str(source)], check=True, capture_output=True)
    return folder


def lint(folder: Path, contracts: str) -> tuple[int, str]:
    """Exit status and output of import-linter over the package in ``folder``, in a process of its own."""
    (folder / "contracts.ini").write_text(contracts)
    code = "import sys; from importlinter.cli import lint_imports; " \
           "sys.exit(lint_imports(config_filename='contracts.ini', no_cache=True))"  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_the_layers_hold(installed: Path):
    status, output = lint(installed, CONTRACTS)
    assert status == 0, output


def test_every_room_is_in_the_installed_package(installed: Path):
    """This includes the mapped rooms, and there is no file outside a room."""
    package = installed / "sr_fuzz"
    rooms = {entry.name for entry in package.iterdir() if entry.is_dir() and entry.name != "__pycache__"}
    assert rooms == set(LAYERS)
    assert {entry.name for entry in package.glob("*.py")} <= {"__init__.py", "__main__.py"}
    assert {path.name for path in (package / "invariants").glob("*.py")} == {
        path.name for path in (ROOT / "invariants").glob("*.py")
    }
    assert (package / "strategies" / "motifs" / "__init__.py").is_file()
    assert (package / "oracle" / "model_config" / "config.json").is_file()
    assert not (installed / "strategies").exists() and not (installed / "invariants").exists()


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("script", "from sr_fuzz.engine.contract import Engine"),
        ("strategies", "from sr_fuzz.view.view import SchedulerView"),
        ("play", "import hypothesis"),
    ],
)
def test_a_forbidden_import_is_seen(installed: Path, room: str, line: str):
    intruder = installed / "sr_fuzz" / room / "intruder.py"
    intruder.write_text(line + "\n")
    try:
        status, output = lint(installed, CONTRACTS)
    finally:
        intruder.unlink()
    assert status == 1 and "intruder" in output, output


def test_the_mapped_packages_are_imported_by_their_full_names():
    """Under their short names they exist in a checkout only, and collide with a user's packages elsewhere."""
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID251", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout
    for name in ("strategies", "invariants"):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", "x.py", "-"],
            cwd=ROOT, capture_output=True, text=True, input=f"import {name}\n",
        )  # fmt: skip
        assert "TID251" in ran.stdout
