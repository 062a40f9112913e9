"""The known bug that a first run shows."""

from __future__ import annotations

from sr_fuzz.campaign.events import Summary
from sr_fuzz.campaign.example import play_example
from sr_fuzz.engine.contract import Engine


def test_the_example_shows_on_the_release_under_test(sr_engine: Engine):
    example = play_example(sr_engine, Summary())
    assert example is not None and example.shows, example
    assert (example.met, example.verified) == (0, 0) and example.open_bugs > 20
