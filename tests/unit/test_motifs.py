"""Motifs and profiles produce the states that they describe, on every configuration."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import strategies as st
from sampling import CONFIGS, DEFAULT, EXTREMES, sample, share
from sr_fuzz.strategies import motifs
from sr_fuzz.strategies.actions import SINGLES, SWITCHES, ScriptBuilder
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.motifs import MOTIFS, motif_actions
from sr_fuzz.strategies.profiles import PROFILES
from sr_fuzz.strategies.requests import Traits
from sr_fuzz.strategies.scripts import draw_menu, draw_profile, kv_pressure, scripts
from sr_fuzz.strategies.weights import FEATURES, PROFILE_WEIGHTS

from sr_fuzz.script import (
    AbortAll,
    Action,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    OpenSession,
    Pause,
    Release,
    Script,
    StartReq,
    Step,
    StepUntil,
    validate,
)  # fmt: skip

# -- motifs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOTIFS)
def test_every_motif_is_valid_wherever_it_is_played(name: str) -> None:
    for config in (*CONFIGS, *EXTREMES):
        if "lora" in MOTIFS[name].needs:
            config = msgspec.structs.replace(config, enable_lora=True, max_loras_per_batch=2)
        for actions in sample(motif_actions(config, name), 15):
            assert actions
            validate(Script(config, actions))


@pytest.mark.parametrize("name", MOTIFS)
def test_every_motif_says_what_bug_it_stands_for(name: str) -> None:
    assert len(MOTIFS[name].why) > 40


def test_every_motif_is_listed() -> None:
    modules = [import_module(f"sr_fuzz.strategies.motifs.{found.name}") for found in iter_modules(motifs.__path__)]
    made = [value for module in modules for value in vars(module).values() if isinstance(value, motifs.Motif)]
    assert {motif.name for motif in made} == set(MOTIFS) - {"burst"}
    assert len(MOTIFS) == len(motifs.ALL)


@st.composite
def menus(draw: Any, config: EngineConfig) -> set[str]:
    """Names of the motifs that one script may play."""
    builder = ScriptBuilder(draw, config, traits=Traits(logprobs=True), turns_at_once=config.enable_streaming_session)
    return {name for name, motif in MOTIFS.items() if motif.add in draw_menu(builder)}


def test_every_motif_can_be_drawn() -> None:
    others = (config for name in ("timeouts", "sessions", "lora") for config in CONFIG_SETS[name].values())
    configs = (*CONFIGS[4:10], *others)
    drawn = {name for config in configs for menu in sample(menus(config), 12) for name in menu}
    assert drawn == {name for name, motif in MOTIFS.items() if "exhausters" not in motif.needs}


def test_a_motif_is_only_drawn_where_it_can_bring_its_state_about() -> None:
    plain, bare = DEFAULT["overlap-nochunk"], DEFAULT["noradix-lof-chunk16"]
    seldom = {"preempt", "preempted_victim", "starved_chunk", "queue_full", "time_out"}
    assert not any(menu & seldom for menu in sample(menus(plain), 30))
    assert not any(menu & {"next_step", "diverge", "stolen_prefix"} for menu in sample(menus(bare), 30))


def test_turns_of_a_session_come_one_after_another_unless_the_script_is_about_that() -> None:
    def waits(script: Script) -> bool:
        """Whether each turn of a streaming session comes after a step until the one before it has ended."""
        streaming = {a.name for a in script.actions if isinstance(a, OpenSession) and a.streaming}
        last: dict[str, str] = {}
        ended: set[str] = set()
        for action in script.actions:
            if isinstance(action, StepUntil) and action.stage == "finished":
                ended.add(action.name)
            elif isinstance(action, StartReq) and action.session and action.session.id in streaming:
                if not {last.get(action.session.id)} <= ended | {None}:
                    return False
                last[action.session.id] = action.name
        return True

    drawn = [s for s in sample(scripts(list(CONFIG_SETS["sessions"].values())), 200) if s.sessions]
    assert len(drawn) > 120
    assert 0.5 < share(drawn, waits) < 0.95


def test_a_burst_wants_more_than_the_pool_holds() -> None:
    for config in CONFIGS:
        for actions in sample(motif_actions(config, "burst"), 30):
            started = [a for a in actions if isinstance(a, StartReq)]
            assert 3 <= len(started) <= 8
            assert 1.5 <= kv_pressure(Script(config, actions)) <= 5.5


def test_bursts_come_in_one_step_or_one_after_another() -> None:
    bursts = sample(motif_actions(CONFIGS[0], "burst"), 100)
    together = [all(isinstance(a, StartReq) for a in actions[:-1]) for actions in bursts]
    assert 0.1 < sum(together) / len(together) < 0.9


def test_memory_is_held_only_when_no_chunk_was_promised_it() -> None:
    """At the start of a script, or in an engine that has just retracted or aborted everything and has stepped since."""
    for script in sample(scripts(CONFIGS, exhausters=True), 200):
        for index, action in enumerate(script.actions):
            if isinstance(action, ExhaustKv) and index:
                before = script.actions[index - 2 : index]
                assert isinstance(before[1], Step)
                assert before[0] in (Pause("retract"), AbortAll())


def test_what_is_held_is_released_within_the_motif() -> None:
    for name in (name for name in MOTIFS if "exhausters" in MOTIFS[name].needs):
        for actions in sample(motif_actions(CONFIGS[0], name), 30):
            assert sum(isinstance(a, Release) for a in actions) == 1


def test_single_actions_cover_all_kinds_but_exhausters_and_sessions() -> None:
    @st.composite
    def single(draw: Any, tag: str) -> tuple[Action, ...]:
        builder = ScriptBuilder(draw, CONFIGS[0])
        SINGLES[tag](builder)
        return tuple(builder.actions)

    not_single = {"exhaust_kv", "exhaust_lock_refs", "exhaust_rows", "release", "open_session", "close_session"}
    assert set(SINGLES) | not_single == {kind.__struct_config__.tag for kind in get_args(Action)}
    for tag in SINGLES:
        for actions in sample(single(tag), 20):
            assert [a.__struct_config__.tag for a in actions] == [tag]


# -- profiles and weights --------------------------------------------------------------------------------------


@st.composite
def opened(draw: Any, config: EngineConfig, name: str) -> Script:
    builder = ScriptBuilder(draw, config)
    PROFILES[name].open(builder)
    return Script(config, tuple(builder.actions))


@st.composite
def profiles(draw: Any, config: EngineConfig) -> str:
    return draw_profile(draw, config).name


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid_on_every_configuration(name: str) -> None:
    for config in (*CONFIGS, *EXTREMES):
        for script in sample(opened(config, name), 10):
            validate(script)


def test_profiles_want_what_they_say() -> None:
    for config in CONFIGS:
        opens = {name: sample(opened(config, name), 20) for name in PROFILES}
        assert not any(script.actions for script in opens["idle"])
        assert all(kv_pressure(script) < 1 for script in opens["steady"])
        assert all(kv_pressure(script) >= 1.5 for script in opens["burst"])
        assert all(len(script.names) > config.max_running_requests for script in opens["saturated"])
        assert sum(kv_pressure(script) > 1 for script in opens["oversubscribed"]) >= 15


def test_every_profile_is_drawn_for_every_configuration() -> None:
    for config in CONFIGS[::4]:
        assert set(sample(profiles(config), 100)) == set(PROFILES)


def test_weights_name_what_exists() -> None:
    assert set(PROFILE_WEIGHTS) == set(PROFILES)
    for feature in FEATURES:
        assert set(feature.motifs) <= set(MOTIFS), feature.name
        assert set(feature.profiles) <= set(PROFILES), feature.name
        assert set(feature.switches) <= set(SWITCHES), feature.name


def test_every_feature_but_that_of_other_models_is_one_of_a_configuration() -> None:
    configs = [config for members in CONFIG_SETS.values() for config in members.values()]
    missing = [feature.name for feature in FEATURES if not any(feature.has(config) for config in configs)]
    assert missing in ([], ["window or state"])


def test_weights_go_by_what_a_configuration_is_not_by_its_name() -> None:
    plain = EngineConfig(max_total_tokens=112, schedule_conservativeness=0.2)
    urgent = msgspec.structs.replace(plain, enable_priority_scheduling=True, max_queued_requests=5)
    saturated = [sample(profiles(config), 300).count("saturated") for config in (plain, urgent)]
    assert saturated[1] > 2 * saturated[0]


def test_what_a_configuration_has_no_use_for_is_left_out() -> None:
    noradix = msgspec.structs.replace(CONFIGS[0], disable_radix_cache=True)
    for script in sample(scripts([noradix]), 100):
        assert not any(isinstance(a, EvictRadix) for a in script.actions)
        assert not any(isinstance(a, StartReq) and a.prompt.after for a in script.actions)
