"""Each seeded fault is found by the invariant that is responsible for it; without the fault nothing is found."""

from __future__ import annotations

import pytest

from sr_fuzz.engine.around.differential import compared
from sr_fuzz.faults import as_fault
from sr_fuzz.faults.catalogue import FAULTS
from tests.faults.triggers import SCRIPTS
from tests.rules import SHOWN_BY_FAULT, is_rule

# Only the fault that hangs uses all of this time; the others need a tenth of a second.
LIMIT_S = 2.0


def test_every_fault_has_its_script():
    assert SCRIPTS.keys() == FAULTS.keys()


def test_every_fault_can_be_loaded_by_its_path():
    assert [as_fault(fault.path) for fault in FAULTS.values()] == list(FAULTS.values())


@pytest.mark.parametrize("name", FAULTS)
def test_seen(sr_engine, name):
    fault = FAULTS[name]
    # A hang ends with the time limit; for any other outcome the time limit must not matter.
    limit_s = LIMIT_S if "hang" in fault.expected else None
    with sr_engine.with_faults(fault.path) as engine:
        outcome = compared(engine, fault.expected[0]).run(SCRIPTS[name], limit_s=limit_s)
    assert outcome.violation is not None, outcome.report()
    assert outcome.violation.invariant in fault.expected, outcome.report()
    assert is_rule(outcome, SHOWN_BY_FAULT.get(name, "*")), outcome.report()
    reached, triggered = outcome.faults[name]
    assert reached > 0 and triggered > 0


@pytest.mark.parametrize("name", FAULTS)
def test_silent_without_it(sr_engine, name):
    outcome = compared(sr_engine, FAULTS[name].expected[0]).run(SCRIPTS[name])
    assert outcome.ok, outcome.report()
    assert not outcome.faults


def test_sglangs_own_forced_retraction_breaks_nothing(sr_engine):
    """SGLang does retract, repeatedly, and every invariant holds."""
    script = SCRIPTS["wrong_victim"]
    with sr_engine.with_faults("sr_fuzz.faults.catalogue.sglang_own:forced_retraction") as engine:
        outcome = engine.run(script)
    assert outcome.ok, outcome.report()
    # There are more prefills than requests: some of them are of requests that had been running.
    prefills = [record for record in outcome.trace if record.mode == "extend"]
    assert len(prefills) > len(script.names)
