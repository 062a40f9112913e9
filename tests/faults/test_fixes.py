"""With each fix, the script of its bug breaks nothing: this confirms the cause that the bug's file gives."""

from __future__ import annotations

import pytest

from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.faults import as_fault

FIXED = {path.stem: bug for path, bug in shipped().items() if bug.fixes}
LOCAL = [name for name, bug in FIXED.items() if bug.engine == "local"]
SERVER = [name for name, bug in FIXED.items() if bug.engine == "server"]


def test_there_are_fixes():
    assert set(FIXED) == {path.stem for path in shipped()}, "each known bug has a fix, which verifies its hits"
    for fix in {fix for bug in FIXED.values() for fix in bug.fixes}:
        assert as_fault(fix).name == fix.rpartition(":")[2]


@pytest.mark.parametrize("name", LOCAL)
def test_the_bug_is_gone(sr_engine, name):
    gone(sr_engine, FIXED[name])


@pytest.mark.parametrize("name", SERVER)
def test_the_bug_is_gone_on_the_server(sr_server_engine, name):
    gone(sr_server_engine, FIXED[name])


def gone(engine, bug):
    if not bug.is_open_in(engine.sglang_version):
        pytest.skip(f"SGLang {engine.sglang_version} does not have this bug; --sr-sglang VERSION takes another one")
    with engine.with_faults(*bug.fixes) as engine:
        outcome = engine.run(bug.script)
    assert outcome.ok, outcome.report()
    for fix in bug.fixes:
        _, acted = outcome.faults[as_fault(fix).name]
        assert acted > 0, f"it was gone without {fix}"
