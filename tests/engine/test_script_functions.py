"""Script functions written against SGLang's scripted-runtime API run on the local engine, with all invariants on."""

from __future__ import annotations

import pytest

from sr_fuzz.runtime.helpers import LIFECYCLE_STAGES
from sr_fuzz.script import EngineConfig

CONFIG = EngineConfig()
HERE = "tests.engine.script_functions"


@pytest.mark.parametrize(
    "name",
    ["core_api", "chunked_prefill", "abort_all_while_chunking", "abort_one_of_two", "radix", "exhausters"],
)
def test_script_function_holds(sr_engine, name):
    outcome = sr_engine.execute(f"{HERE}:{name}", config=CONFIG)
    assert outcome.ok, outcome.report()
    assert outcome.forwards > 0


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("stage", LIFECYCLE_STAGES)
def test_pause_and_retract_at_each_stage(sr_engine, stage, overlap):
    config = EngineConfig(disable_overlap_schedule=not overlap)
    outcome = sr_engine.execute(f"{HERE}:pause_and_retract_at", config=config, args=[stage])
    assert outcome.ok, outcome.report()


def test_rows_are_exhausted_by_ballast(sr_engine):
    # SGLang clips ballast to the context of 4096 tokens and reserves all of it; six of them must fit.
    outcome = sr_engine.execute(f"{HERE}:exhaust_rows", config=EngineConfig(max_total_tokens=32768))
    assert outcome.ok, outcome.report()


def test_a_failing_assertion_of_the_script_is_reported_as_its_own(sr_engine):
    with pytest.raises(AssertionError, match=r"predicate did not hold within 5 steps"):
        sr_engine.execute(f"{HERE}:wrong_assertion", config=CONFIG)


def test_asking_an_exhauster_for_too_much_says_what_is_allowed(sr_engine):
    with pytest.raises(AssertionError, match=r"leave_pages must be 0 to 128 .*got 10000"):
        sr_engine.execute(f"{HERE}:exhauster_asked_too_much", config=CONFIG)


def test_what_a_script_held_does_not_reach_the_next_one(sr_engine):
    assert sr_engine.execute(f"{HERE}:held_at_the_end", config=CONFIG).ok
    assert sr_engine.execute(f"{HERE}:chunked_prefill", config=CONFIG).ok


def test_an_unknown_function_is_one_clear_line(sr_engine):
    from sr_fuzz.errors import EngineError

    with pytest.raises(EngineError) as error:
        sr_engine.execute("tests.engine.script_functions:nothing", config=CONFIG)
    assert "nothing" in str(error.value).splitlines()[0]
