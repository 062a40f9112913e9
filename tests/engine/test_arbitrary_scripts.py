"""Whatever script validation accepts, playing it says something about SGLang: it never ends in an error of ours.

What SGLang breaks is no failure here; the property tests and campaigns look for that, with scripts that find more.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.engine.contract import Engine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.script import EngineConfig, Script, to_json
from sr_fuzz.script.errors import ConfigNotBooted
from tests.arbitrary_scripts import arbitrary_configs, scripts

ONE_RANK = {
    name: config for members in CONFIG_SETS.values() for name, config in members.items() if config.world_size == 1
}

# Of a short run, since each configuration costs a boot: kinds of cache and loop that differ as much as possible.
FEW = (
    "overlap-chunk16", "normal-mixed-chunk8", "priority-low-first", "paged4-mixed-noradix", "swa-chunk8-tiny",
    "mamba-chunk16", "session-chunk16", "ngram-chunk16",
)  # fmt: skip

FEW_EXAMPLES = 30
"""A profile with more examples than this plays every configuration."""


def play_all(engine: Engine, drawn: SearchStrategy[Script], count: int) -> None:
    """Play ``count`` scripts; the first that ends in anything but an outcome fails the test."""
    @settings(max_examples=max(1, count))
    @given(drawn)
    def ends_in_an_outcome(script: Script) -> None:
        note(to_json(script).decode())
        try:
            outcome = engine.run(script)
        except ConfigNotBooted as error:
            # SGLang may refuse a configuration, in words of its own or of ours; without a traceback of ours.
            event(f"not booted: {str(error).splitlines()[0][:80]}")
            assert not is_our_fault(str(error)), error
            return
        assert outcome.not_played == {} and outcome.not_counted == {}, outcome
        event(f"{outcome.violation.invariant}: {outcome.violation.rule}" if outcome.violation else "no violation")

    ends_in_an_outcome()


def is_our_fault(report: str) -> bool:
    """Whether the traceback in a report, if there is one, ends in this project."""
    places = [line for line in report.splitlines() if line.lstrip().startswith('File "')]
    return bool(places) and "/sr_fuzz/" in places[-1] and "/site-packages/" not in places[-1]


def _most_examples() -> int:
    return settings.default.max_examples if settings.default is not None else FEW_EXAMPLES


def test_a_valid_script_ends_in_an_outcome(sr_engine):
    names: Sequence[str] = FEW if _most_examples() <= FEW_EXAMPLES else tuple(ONE_RANK)
    configs = st.sampled_from([ONE_RANK[name] for name in names])
    play_all(sr_engine, scripts(configs), _most_examples())


def test_a_valid_script_of_many_actions_ends_in_an_outcome(sr_engine):
    configs = st.sampled_from([ONE_RANK[name] for name in FEW[:2]])
    play_all(sr_engine, scripts(configs, least_actions=100, most_actions=200), _most_examples() // 10)


def test_a_valid_configuration_boots_or_is_refused(sr_engine):
    """Every example boots a scheduler of its own."""
    if not isinstance(sr_engine, LocalEngine):
        pytest.skip("another engine takes ten seconds and more for each configuration")
    bases: list[EngineConfig] = list(ONE_RANK.values())
    with sr_engine.with_faults() as engine:
        engine.keep(2)
        play_all(engine, scripts(arbitrary_configs(bases)), _most_examples() // 5)
