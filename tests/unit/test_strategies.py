"""What a user of the strategies relies on: valid scripts, long enough, with memory pressure, of every kind.

Every sample is derandomised, so each test gives the same answer each time; the bounds lie far from what the strategies
aim at, so an edit that reshuffles the sample does not matter.
"""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import settings
from sampling import AFRESH, CONFIGS, DEFAULT, EXPLORING, EXTREMES, assert_found, sample, share
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import kv_pressure, scripts

from sr_fuzz.script import (
    STAGES,
    Abort,
    AbortAll,
    Action,
    AdvanceClock,
    Continue,
    EngineConfig,
    FlushCache,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
    StepUntil,
    validate,
)  # fmt: skip
from sr_fuzz.script.text import text


@pytest.fixture(scope="module")
def drawn() -> list[Script]:
    return sample(scripts(CONFIGS), 500)


# -- whole scripts ---------------------------------------------------------------------------------------------


def test_scripts_are_valid(drawn: list[Script]) -> None:
    for script in drawn:
        validate(script)


def test_hypothesis_explores_them_without_complaint() -> None:
    """All health checks are on here except the one that depends on a clock: no script is too large, none is filtered
    out."""
    explored = sample(scripts(CONFIGS), 200, EXPLORING)
    assert len(explored) == 200
    for script in explored:
        validate(script)


def test_requests_are_named_in_order(drawn: list[Script]) -> None:
    for script in drawn:
        assert script.names == tuple(f"r{index}" for index in range(len(script.names)))


def test_scripts_are_long_and_short(drawn: list[Script]) -> None:
    assert share(drawn, lambda script: len(script.actions) >= 30) >= 0.2
    assert share(drawn, lambda script: len(script.actions) < 15) >= 0.1
    assert max(len(script.actions) for script in drawn) < 100


def test_half_of_the_scripts_have_memory_pressure_and_no_exhauster(drawn: list[Script]) -> None:
    assert share(drawn, lambda script: kv_pressure(script) >= 1.5 and not script.uses_exhausters) >= 0.5


def test_few_scripts_have_exhausters_unless_asked_for(drawn: list[Script]) -> None:
    assert 0 < share(drawn, lambda script: script.uses_exhausters) <= 0.16
    assert not any(script.uses_exhausters for script in sample(scripts(CONFIGS, exhausters=False), 150))
    with_hold = sample(scripts(CONFIGS, exhausters=True), 150)
    assert all(script.uses_exhausters for script in with_hold)
    for script in with_hold:
        validate(script)


def test_most_scripts_leave_eos_alone(drawn: list[Script]) -> None:
    """With `ignore_eos` SGLang reserves the whole output at admission, and no request is retracted."""
    eos_ignored = [a.ignore_eos for script in drawn for a in script.actions if isinstance(a, StartReq)]
    assert 0 < sum(eos_ignored) / len(eos_ignored) < 0.5


def test_scripts_differ_in_what_they_use(drawn: list[Script]) -> None:
    """Swarm testing: each kind of action is missing from a good part of the longer scripts, and is in others."""
    longer = [script for script in drawn if len(script.actions) >= 30]
    for kind in (Abort, AbortAll, Pause, FlushCache, StepUntil):
        assert 0.02 < share(longer, lambda script: any(isinstance(a, kind) for a in script.actions)) < 0.98, kind


@pytest.mark.parametrize("kind", get_args(Action), ids=lambda kind: kind.__name__)
def test_every_kind_of_action_occurs(kind: type) -> None:
    configs = (*CONFIGS, *CONFIG_SETS["timeouts"].values(), *CONFIG_SETS["sessions"].values())
    assert_found(scripts(configs), lambda script: any(isinstance(a, kind) for a in script.actions))


def test_the_clock_moves_where_there_is_a_time_out_and_nowhere_else() -> None:
    assert not any(isinstance(a, AdvanceClock) for script in sample(scripts(CONFIGS), 100) for a in script.actions)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_aimed_at(stage: str) -> None:
    reached = lambda script: any(isinstance(a, StepUntil) and a.stage == stage for a in script.actions)  # noqa: E731
    assert_found(scripts(CONFIGS, exhausters=False), reached)


@pytest.mark.parametrize("name", DEFAULT)
def test_every_default_configuration_occurs(name: str) -> None:
    assert_found(scripts(CONFIGS), lambda script: script.config == DEFAULT[name])


def test_only_the_given_configurations_occur() -> None:
    only = DEFAULT["lpm-chunk16"]
    assert {script.config for script in sample(scripts([only]), 50)} == {only}


@pytest.mark.parametrize("config", EXTREMES, ids=str)
def test_scripts_are_valid_for_extreme_configurations(config: EngineConfig) -> None:
    for script in sample(scripts([config]) | scripts([config], exhausters=True), 100):
        validate(script)


def test_no_configuration_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one engine configuration"):
        scripts([])


@pytest.mark.parametrize("how", [EXPLORING, AFRESH], ids=["exploring", "afresh"])
def test_the_same_seed_draws_the_same_scripts(how: settings) -> None:
    first, second = (sample(scripts(CONFIGS), 30, how) for _ in range(2))
    assert list(map(text, first)) == list(map(text, second))


# -- states that the scripts aim at ----------------------------------------------------------------------------

RIGHT_AFTER_A_STAGE = {
    "abort": lambda victim, then: then == Abort(victim),
    "abort_late": lambda victim, then: then == Abort(victim, await_arrival=False),
    "abort_all": lambda victim, then: isinstance(then, AbortAll),
    "pause_retract": lambda victim, then: then == Pause("retract"),
    "pause_in_place": lambda victim, then: then == Pause("in_place"),
    "pause_abort": lambda victim, then: then == Pause("abort"),
    "flush": lambda victim, then: then == FlushCache(),
    "start": lambda victim, then: isinstance(then, StartReq),
}


@pytest.mark.parametrize("strike", RIGHT_AFTER_A_STAGE)
def test_a_strike_follows_a_stage_in_the_same_step(strike: str) -> None:
    struck = RIGHT_AFTER_A_STAGE[strike]

    def strikes(script: Script) -> bool:
        pairs = zip(script.actions, script.actions[1:])
        return any(isinstance(a, StepUntil) and struck(a.name, b) for a, b in pairs)

    assert_found(scripts(CONFIGS, exhausters=False), strikes)


def _has_sequence(script: Script, *kinds: type) -> bool:
    tail = [type(a) for a in script.actions]
    return any(tuple(tail[i : i + len(kinds)]) == kinds for i in range(len(tail)))


@pytest.mark.parametrize(
    "kinds",
    [(Pause, Pause), (Continue, Continue), (Pause, FlushCache), (Pause, StartReq), (StartReq, Abort), (Abort, Abort)],
    ids=lambda kinds: "+".join(kind.__name__ for kind in kinds),
)
def test_a_combination_meets_in_one_step(kinds: tuple[type, ...]) -> None:
    assert_found(scripts(CONFIGS, exhausters=False), lambda script: _has_sequence(script, *kinds))


def test_a_name_is_aborted_before_it_exists_and_twice() -> None:
    def before_it_exists(script: Script) -> bool:
        started: set[str] = set()
        for action in script.actions:
            if isinstance(action, StartReq):
                started.add(action.name)
            elif isinstance(action, Abort) and action.name not in started and action.name in script.names:
                return True
        return False

    def twice(script: Script) -> bool:
        aborted = [a.name for a in script.actions if isinstance(a, Abort)]
        return len(set(aborted)) < len(aborted)

    assert_found(scripts(CONFIGS), before_it_exists)
    assert_found(scripts(CONFIGS), twice)


# -- pressure --------------------------------------------------------------------------------------------------


def pressure_of(*actions: Action, **config: Any) -> float:
    return kv_pressure(Script(EngineConfig(max_total_tokens=100, **config), actions))


def test_pressure_adds_prompts_and_outputs() -> None:
    first = StartReq("r0", Prompt(family=0, length=30), 20)
    second = StartReq("r1", Prompt(family=1, length=30), 20)
    assert pressure_of(first) == 0.5
    assert pressure_of(first, second) == 1.0


def test_pressure_forgets_what_has_finished_or_was_aborted() -> None:
    first = StartReq("r0", Prompt(family=0, length=30), 20)
    second = StartReq("r1", Prompt(family=1, length=30), 20)
    # Two chunks of 16 and 20 tokens: alone it would run for 22 steps.
    assert pressure_of(first, Step(21), second) == 1.0
    assert pressure_of(first, Step(22), second) == 0.5
    assert pressure_of(first, StepUntil("r0", "finished", max_steps=40), second) == 0.5
    for end in (Abort("r0"), AbortAll(), Pause("abort")):
        assert pressure_of(first, end, second) == 0.5
    for other in (Abort("r1"), Pause("retract"), FlushCache()):
        assert pressure_of(first, other, second) == 1.0


def test_pressure_counts_a_shared_prefix_once_where_it_is_cached() -> None:
    first = StartReq("r0", Prompt(length=40), 10)
    longer = StartReq("r1", Prompt(length=50, unique_tail=5), 10)
    assert pressure_of(first, longer) == 0.7
    assert pressure_of(first, longer, disable_radix_cache=True) == 1.1


def test_pressure_clips_outputs_and_leaves_refused_prompts_out() -> None:
    assert pressure_of(StartReq("r0", Prompt(length=40), 4096)) == 0.98
    assert pressure_of(StartReq("r0", Prompt(length=94), 1)) == 0
    assert pressure_of() == 0
