"""Each mend makes the test of its bug pass: what the page says is the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_fuzz.bugs.known import mends
from sr_fuzz.faults import as_fault
from sr_fuzz.outcome.files import load

REGRESSIONS = Path(__file__).parents[1] / "regressions"
MENDED = {path.stem: mend for path, mend in mends(REGRESSIONS).items()}


def test_there_are_mends():
    assert len(MENDED) > 5
    for mend in {mend for several in MENDED.values() for mend in several}:
        assert as_fault(mend).name == mend.rpartition(":")[2]


@pytest.mark.parametrize("name", MENDED)
def test_the_bug_is_gone(sr_engine, name):
    if REGRESSIONS / f"{name}.py" not in mends(REGRESSIONS, sr_engine.sglang_version):
        pytest.skip(f"SGLang {sr_engine.sglang_version} does not have this bug; --sr-sglang VERSION takes another one")
    script = load(REGRESSIONS / f"{name}.py").script
    with sr_engine.with_faults(*MENDED[name]) as engine:
        outcome = engine.run(script)
    assert outcome.ok, outcome.report()
    for mend in MENDED[name]:
        _, acted = outcome.faults[as_fault(mend).name]
        assert acted > 0, f"it was gone without {mend}"
