"""Each breakage breaks its rule, on a real scheduler, and its script breaks nothing without it."""

from __future__ import annotations

import pytest

from sr_fuzz.sglang_api.versions import RELEASES
from tests.breakages import BREAKAGES, broken_as_told
from tests.rules import rule_of


@pytest.fixture(scope="module")
def broken_engine(sr_engine):
    """One engine for all, since each configuration costs a boot: the script says which breakage acts."""
    if sr_engine.sglang_version != RELEASES[-1]:
        pytest.skip(f"breakages are written for SGLang {RELEASES[-1]}; this is {sr_engine.sglang_version}")
    with sr_engine.with_faults(broken_as_told.path) as engine:
        yield engine


@pytest.mark.parametrize("key", BREAKAGES)
def test_it_breaks_its_rule_and_nothing_without_it(broken_engine, key):
    breakage = BREAKAGES[key]
    healthy = broken_engine.run(breakage.healthy)
    assert healthy.ok, healthy.report()
    assert healthy.faults[broken_as_told.name][1] == 0
    broken = broken_engine.run(breakage.script, invariants=breakage.invariants)
    assert rule_of(broken) == breakage.rule, broken.report()
    assert broken.faults[broken_as_told.name][1] > 0


@pytest.mark.parametrize("key", [key for key, breakage in BREAKAGES.items() if breakage.alone])
def test_others_are_off_only_where_one_of_them_speaks_first(broken_engine, key):
    outcome = broken_engine.run(BREAKAGES[key].script)
    assert (rule_of(outcome) or "").partition(":")[0] == BREAKAGES[key].first, outcome.report()


def test_each_says_what_it_does():
    assert [key for key, breakage in BREAKAGES.items() if not breakage.does] == []
