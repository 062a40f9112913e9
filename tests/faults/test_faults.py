"""Each seeded fault is seen, by the invariant whose business it is; without it nothing is seen."""

from __future__ import annotations

import pytest

from sr_fuzz.faults import as_fault
from tests.faults.seeded import FAULTS
from tests.faults.triggers import SCRIPTS

# Only the fault that hangs takes all of it; the others need a tenth of a second.
LIMIT_S = 2.0


def test_every_fault_has_its_script():
    assert SCRIPTS.keys() == FAULTS.keys()


def test_every_fault_can_be_loaded_by_its_path():
    assert [as_fault(fault.path) for fault in FAULTS.values()] == list(FAULTS.values())


@pytest.mark.parametrize("name", FAULTS)
def test_seen(sr_engine, name):
    fault = FAULTS[name]
    # A hang is over when the time is; for any other outcome the time must not matter.
    limit_s = LIMIT_S if "hang" in fault.expected else None
    with sr_engine.with_faults(fault.path) as engine:
        outcome = engine.run(SCRIPTS[name], limit_s=limit_s)
    assert outcome.violation is not None, outcome.report()
    assert outcome.violation.invariant in fault.expected, outcome.report()
    reached, triggered = outcome.faults[name]
    assert reached > 0 and triggered > 0


@pytest.mark.parametrize("name", FAULTS)
def test_silent_without_it(sr_engine, name):
    outcome = sr_engine.run(SCRIPTS[name])
    assert outcome.ok, outcome.report()
    assert not outcome.faults
