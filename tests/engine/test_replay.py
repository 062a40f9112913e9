"""A script runs in the same way every time, on every kind of engine configuration."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.draw import first
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.engine.around.differential import difference

_DRAWN = 6
_SEED = 11


@pytest.mark.parametrize("name", CONFIG_SETS["all"])
def test_three_runs_of_a_script_are_one(sr_engine, name):
    config = CONFIG_SETS["all"][name]
    # A short script: a long one only adds steps.
    script = min(first(scripts([config]), seed=_SEED, count=_DRAWN), key=lambda script: len(script.actions))
    runs = [sr_engine.run(script) for _ in range(3)]
    assert len(runs[0].trace) > 3
    for other in runs[1:]:
        assert other.violation == runs[0].violation
        assert difference(runs[0], replace(other, violation=None)) is None
