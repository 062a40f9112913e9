"""Files that earlier versions wrote still work: repros, the paths of fixes and faults in them, moved modules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from sr_fuzz.bugs.known import KnownError, fixes, known_signatures
from sr_fuzz.emit.pytest_repro import emit
from sr_fuzz.faults import Fault, as_fault
from sr_fuzz.faults.old_paths import current
from sr_fuzz.outcome import Finding, Violation, old_addresses, signature
from sr_fuzz.outcome.files import load
from sr_fuzz.script import EngineConfig, Script, Step

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


OLD_PLACES = (
    "mem_cache/allocation.py:alloc_token_slots: raise RuntimeError(msg)",
    "mem_cache/allocation.py:grow: x = 1",
)
OLD = "exception:RuntimeError:radix+overlap:be70d1"
"""As the previous version made it, with the source lines in it."""


@pytest.fixture
def old_finding(tmp_path: Path) -> Path:
    violation = Violation("exception", "RuntimeError", "SGLang raised RuntimeError", 4, location=OLD_PLACES)
    script = Script(EngineConfig(), (Step(),))
    path = emit(Finding(OLD, script, violation, "0.5.22"), tmp_path, known_cause="why")
    path.write_text(path.read_text() + '\nALSO_SEEN_AS = ("exception:RuntimeError:*:be70d1", "kv_pages:leaked:*")\n')
    return path


def test_signatures_of_the_last_version_are_known_by_their_functions(old_finding: Path):
    today = signature(load(old_finding.with_suffix(".json")).finding.violation, EngineConfig())
    assert today != OLD and load(old_finding).signature == load(old_finding.with_suffix(".json")).signature == today
    known = known_signatures(old_finding.parent)
    assert today in known and OLD not in known
    assert today.replace("radix+overlap", "no-radix+normal") in known
    assert "kv_pages:leaked:radix" in known


def test_an_edit_of_a_source_line_changes_no_signature():
    places = tuple(place.partition(": ")[0] + ": something else" for place in OLD_PLACES)
    one, other = (Violation("exception", "RuntimeError", "", 4, location=at) for at in (OLD_PLACES, places))
    assert signature(one, EngineConfig()) == signature(other, EngineConfig())


def test_a_finding_file_that_cannot_be_read_is_named(old_finding: Path):
    old_finding.with_suffix(".json").write_text("{")
    with pytest.raises(KnownError, match=f"{old_finding.with_suffix('.json').name}: not JSON"):
        known_signatures(old_finding.parent)


@pytest.mark.parametrize("text", ["{}", "[]", '{"rules": ["E501"]}'])
def test_another_file_of_that_name_is_none_of_our_business(old_finding: Path, text: str):
    old_finding.with_suffix(".json").write_text(text)
    assert OLD in known_signatures(old_finding.parent)
    assert load(old_finding).signature == OLD
