"""Files that earlier versions wrote still work: repros, the paths of fixes and faults in them, moved modules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from sr_fuzz.bugs.known import fixes
from sr_fuzz.faults import Fault, as_fault
from sr_fuzz.faults.old_paths import current
from sr_fuzz.outcome import old_addresses
from sr_fuzz.outcome.files import load

REPRO = '''
import pytest

from sr_fuzz.differential import DifferentialEngine
from sr_fuzz.script import EngineConfig, Script, Step

SIGNATURE = "determinism:other_trace:radix+overlap"

MENDED_BY = ("tests.mends.sessions:refused_turn", "tests.mends.output:embedding_once")

SCRIPT = Script(config=EngineConfig(), actions=(Step(),))


@pytest.mark.xfail(strict=True, reason="why")
def test_determinism(sr_engine):
    assert DifferentialEngine(sr_engine).run(SCRIPT).ok
'''


@pytest.fixture
def repro(tmp_path: Path) -> Path:
    path = tmp_path / "test_determinism.py"
    path.write_text(REPRO)
    return path


def test_a_repro_of_the_last_version_is_read(repro: Path):
    case = load(repro)
    assert case.signature == "determinism:other_trace:radix+overlap" and len(case.script.actions) == 1


def test_its_fixes_resolve(repro: Path):
    (paths,) = fixes(repro.parent).values()
    assert [as_fault(path).name for path in paths] == ["refused_turn", "embedding_once"]
    assert all(isinstance(as_fault(path), Fault) for path in paths)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tests.faults.memory:double_free", "sr_fuzz.faults.catalogue.memory:double_free"),
        ("tests.faults.hybrid:state_leaked", "sr_fuzz.faults.catalogue.hybrid_caches:state_leaked"),
        ("my.faults:own", "my.faults:own"),
    ],
)
def test_old_paths_of_faults(old: str, new: str):
    assert current(old) == new


@pytest.mark.parametrize("address", old_addresses.MOVED)
def test_a_moved_module_is_found_under_its_old_name(address: str):
    old_addresses.install()
    assert importlib.import_module(address) is importlib.import_module(old_addresses.MOVED[address])
