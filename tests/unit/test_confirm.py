"""Confirmation counts the runs that show the same finding, and no other runs."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine, leak

from sr_fuzz.outcome import Violation, signature
from sr_fuzz.script import EngineConfig, Script, StartReq
from sr_fuzz.shrink.confirm import confirm

SCRIPT = Script(EngineConfig(), (StartReq("r0"),))
TARGET = signature(leak(), SCRIPT.config)


def test_counts_the_runs_that_show_the_signature():
    shown = iter([leak(), None, leak(step=3), Violation("request_rows", "leaked", "row 1", 9), leak()])
    engine = FakeEngine(lambda script: next(shown))
    assert confirm(SCRIPT, TARGET, engine) == (3, 5)
    assert engine.played == [SCRIPT] * 5


def test_runs_as_often_as_told():
    engine = FakeEngine(lambda script: leak())
    assert confirm(SCRIPT, TARGET, engine, n=2) == (2, 2)
    assert len(engine.played) == 2


def test_stops_when_told_but_not_before_a_run():
    engine = FakeEngine(lambda script: leak())
    assert confirm(SCRIPT, TARGET, engine, stop=lambda: True) == (1, 1)
    assert confirm(SCRIPT, TARGET, engine, stop=lambda: len(engine.played) == 4) == (3, 3)


def test_refuses_to_confirm_without_a_run():
    with pytest.raises(ValueError, match="got 0"):
        confirm(SCRIPT, TARGET, FakeEngine(lambda script: leak()), n=0)


def test_refuses_an_engine_whose_runs_share_a_scheduler():
    engine = FakeEngine(lambda script: leak())
    engine.isolation = "shared"
    with pytest.raises(ValueError, match="isolation 'shared'.*see fresh"):
        confirm(SCRIPT, TARGET, engine)
    assert not engine.played
