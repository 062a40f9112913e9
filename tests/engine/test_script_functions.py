"""Script functions, and what an exhauster holds; tests/scripted has the tests of what such functions can do."""

from __future__ import annotations

import pytest

from sr_fuzz.script import EngineConfig

CONFIG = EngineConfig()
HERE = "tests.engine.script_functions"


def test_asking_an_exhauster_for_too_much_says_what_is_allowed(sr_engine):
    with pytest.raises(AssertionError, match=r"leave_pages must be 0 to 128 .*got 10000"):
        sr_engine.execute(f"{HERE}:exhauster_asked_too_much", config=CONFIG)


def test_what_a_script_held_does_not_reach_the_next_one(sr_engine):
    assert sr_engine.execute(f"{HERE}:held_at_the_end", config=CONFIG).ok
    assert sr_engine.execute(f"{HERE}:chunked_prefill", config=CONFIG).ok
