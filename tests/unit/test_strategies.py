"""What a user of the strategies relies on: valid scripts, long enough, with memory pressure, of every kind.

Every sample is derandomised, so each test gives the same answer each time; the bounds lie far from what the
strategies aim at, so that an edit which reshuffles the sample does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pkgutil import iter_modules
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sr_fuzz.cpu.oracle import all_prompt_tokens, continuation
from sr_fuzz.script import (
    STAGES,
    Abort,
    AbortAll,
    Action,
    AdvanceClock,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    FlushCache,
    OpenSession,
    Pause,
    Prompt,
    Release,
    Script,
    StartReq,
    Step,
    StepUntil,
    validate,
)  # fmt: skip
from sr_fuzz.script_text import text  # fmt: skip
from strategies import motifs
from strategies.actions import SINGLES, SWITCHES, Draft
from strategies.configs import CONFIG_SETS, find_configs
from strategies.fresh import BACKEND
from strategies.motifs import MOTIFS, motif_actions
from strategies.profiles import PROFILES
from strategies.requests import Traits, draw_digits, draw_relative, draw_start_req, draw_traits, prompts, start_reqs
from strategies.scripts import draw_menu, draw_profile, kv_pressure, scripts
from strategies.weights import FEATURES, PROFILE_WEIGHTS, SWITCH_WEIGHTS

DEFAULT = CONFIG_SETS["default"]
CONFIGS = tuple(DEFAULT.values())

# The ends of what a configuration may be; strategies must not only suit the sizes of the default set.
EXTREMES = (
    EngineConfig(max_total_tokens=8, chunked_prefill_size=1, max_running_requests=1),
    EngineConfig(page_size=64, max_total_tokens=64, chunked_prefill_size=64, max_queued_requests=1),
    EngineConfig(page_size=16, max_total_tokens=256, chunked_prefill_size=-1, disable_radix_cache=True),
    EngineConfig(
        max_total_tokens=65536, chunked_prefill_size=8192, enable_priority_scheduling=True,
        priority_scheduling_preemption_threshold=1000, max_running_requests=256, max_queued_requests=1024,
    ),
)  # fmt: skip

# Everything is given, so that no active profile has a say. `too_slow` is left out: it looks at a clock.
EXPLORING = settings(
    derandomize=True, database=None, deadline=None, phases=[Phase.generate], backend="hypothesis",
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
AFRESH = settings(EXPLORING, backend=BACKEND)


def sample(strategy: SearchStrategy[Any], count: int, how: settings = AFRESH) -> list[Any]:
    drawn: list[Any] = []

    @settings(how, max_examples=count)
    @given(strategy)
    def draw(value: Any) -> None:
        drawn.append(value)

    draw()
    return drawn


def assert_found(strategy: SearchStrategy[Any], condition: Callable[[Any], bool]) -> None:
    """Raises `NoSuchExample` when none of thousands of draws satisfies the condition."""
    find(strategy, condition, settings=settings(AFRESH, max_examples=5000))


@pytest.fixture(scope="module")
def drawn() -> list[Script]:
    return sample(scripts(CONFIGS), 500)


def share(drawn: list[Script], condition: Callable[[Script], bool]) -> float:
    return sum(map(condition, drawn)) / len(drawn)


# -- whole scripts ---------------------------------------------------------------------------------------------


def test_scripts_are_valid(drawn: list[Script]) -> None:
    for script in drawn:
        validate(script)


def test_hypothesis_explores_them_without_complaint() -> None:
    """No health check but the one with the clock is off here: nothing too large, nothing filtered away."""
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
    """With `ignore_eos` SGLang reserves the whole output at admission, and nothing is retracted."""
    eos_ignored = [a.ignore_eos for script in drawn for a in script.actions if isinstance(a, StartReq)]
    assert 0 < sum(eos_ignored) / len(eos_ignored) < 0.5


def test_scripts_differ_in_what_they_use(drawn: list[Script]) -> None:
    """Swarm style: each kind of action is missing from a good part of the longer scripts, and is in another."""
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
def test_a_strike_follows_a_stage_in_the_same_turn(strike: str) -> None:
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
def test_a_combination_meets_in_one_turn(kinds: tuple[type, ...]) -> None:
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


# -- motifs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOTIFS)
def test_every_motif_is_valid_wherever_it_is_played(name: str) -> None:
    for config in (*CONFIGS, *EXTREMES):
        for actions in sample(motif_actions(config, name), 15):
            assert actions
            validate(Script(config, actions))


@pytest.mark.parametrize("name", MOTIFS)
def test_every_motif_says_what_bug_it_stands_for(name: str) -> None:
    assert len(MOTIFS[name].why) > 40


def test_every_motif_is_listed() -> None:
    modules = [import_module(f"strategies.motifs.{found.name}") for found in iter_modules(motifs.__path__)]
    made = [value for module in modules for value in vars(module).values() if isinstance(value, motifs.Motif)]
    assert {motif.name for motif in made} == set(MOTIFS) - {"burst"}
    assert len(MOTIFS) == len(motifs.ALL)


@st.composite
def menus(draw: Any, config: EngineConfig) -> set[str]:
    """Names of the motifs that one script may play."""
    draft = Draft(draw, config, traits=Traits(logprobs=True), turns_at_once=config.enable_streaming_session)
    return {name for name, motif in MOTIFS.items() if motif.play in draw_menu(draft)}


def test_every_motif_can_be_drawn() -> None:
    configs = (*CONFIGS[4:10], *CONFIG_SETS["timeouts"].values(), *CONFIG_SETS["sessions"].values())
    drawn = {name for config in configs for menu in sample(menus(config), 12) for name in menu}
    assert drawn == {name for name, motif in MOTIFS.items() if "exhausters" not in motif.needs}


def test_a_motif_is_only_drawn_where_it_can_bring_its_state_about() -> None:
    plain, bare = DEFAULT["overlap-nochunk"], DEFAULT["noradix-lof-chunk16"]
    seldom = {"preempt", "preempted_victim", "starved_chunk", "queue_full", "time_out"}
    assert not any(menu & seldom for menu in sample(menus(plain), 30))
    assert not any(menu & {"next_turn", "diverge", "stolen_prefix"} for menu in sample(menus(bare), 30))


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


def test_bursts_come_in_one_turn_or_one_after_another() -> None:
    bursts = sample(motif_actions(CONFIGS[0], "burst"), 100)
    together = [all(isinstance(a, StartReq) for a in actions[:-1]) for actions in bursts]
    assert 0.1 < sum(together) / len(together) < 0.9


def test_memory_is_held_only_when_no_chunk_was_promised_it() -> None:
    """Before anything, or in an engine that has just retracted or aborted everything and turned since."""
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
        draft = Draft(draw, CONFIGS[0])
        SINGLES[tag](draft)
        return tuple(draft.actions)

    not_single = {"exhaust_kv", "exhaust_lock_refs", "exhaust_rows", "release", "open_session", "close_session"}
    assert set(SINGLES) | not_single == {kind.__struct_config__.tag for kind in get_args(Action)}
    for tag in SINGLES:
        for actions in sample(single(tag), 20):
            assert [a.__struct_config__.tag for a in actions] == [tag]


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
    # Two chunks of 16 and 20 tokens: alone it would run for 22 turns.
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


# -- profiles and weights --------------------------------------------------------------------------------------


@st.composite
def opened(draw: Any, config: EngineConfig, name: str) -> Script:
    draft = Draft(draw, config)
    PROFILES[name].open(draft)
    return Script(config, tuple(draft.actions))


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
    assert set(SWITCH_WEIGHTS) == set(SWITCHES)
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


# -- requests --------------------------------------------------------------------------------------------------


def test_a_relative_prompt_shares_a_prefix_and_leaves_it_everywhere() -> None:
    """Beyond its end, where the answer was, at its end, at a page, one token beside, and inside."""
    config = DEFAULT["overlap-chunk16"]
    earlier = StartReq("r0", Prompt(family=1, length=20, unique_tail=6), 8)

    @st.composite
    def relative(draw: Any) -> StartReq:
        return StartReq("r1", draw_relative(draw, config, earlier))

    shared = set()
    for start in sample(relative(), 400):
        validate(Script(config, (earlier, start)))
        tokens = all_prompt_tokens((earlier, start))
        history = [*tokens["r0"], *islice(continuation(tokens["r0"]), 9)]
        length = start.prompt.length - start.prompt.unique_tail
        assert tokens["r1"][:length] == history[:length]
        shared.add(length)
    assert shared >= {1, 13, 14, 15, 16, 17, 19, 20, 21, 24, 27, 28}


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 48, 88, 89, 90, 95, 96, 97])
def test_prompts_lie_on_the_boundaries(length: int) -> None:
    """Of the chunk, and of the pool: of 96 tokens 89 are the longest prompt that SGLang accepts."""
    config = EngineConfig(max_total_tokens=96, chunked_prefill_size=16)
    assert_found(prompts(config), lambda prompt: prompt.length == length)


def test_prompts_share_prefixes_wholly_partly_or_not_at_all() -> None:
    drawn = sample(prompts(CONFIGS[0]), 300)
    assert {prompt.family for prompt in drawn} == {0, 1, 2, 3}
    assert any(prompt.unique_tail == 0 for prompt in drawn)
    assert any(0 < prompt.unique_tail < prompt.length for prompt in drawn)
    assert any(prompt.unique_tail == prompt.length > 1 for prompt in drawn)


def test_requests_use_all_that_a_request_can_have() -> None:
    drawn = sample(start_reqs(DEFAULT["priority-preempt"], "x"), 1000)
    assert {request.name for request in drawn} == {"x"}
    assert {0, 1} <= {request.max_new_tokens for request in drawn}
    assert {request.ignore_eos for request in drawn} == {True, False}
    assert {request.stream for request in drawn} == {True, False}
    assert {request.priority for request in drawn} >= {None, 0, 1, 2}
    logprobs = [request for request in drawn if request.return_logprob]
    assert {-1, 0} < {request.logprob_start_len for request in logprobs}
    assert len({request.top_logprobs_num for request in logprobs}) > 1
    stops = {token for request in drawn for token in request.stop_token_ids}
    assert stops and all(32 <= token < 64 for token in stops)


def test_priorities_are_rare_where_they_do_not_count() -> None:
    @st.composite
    def traits(draw: Any, config: EngineConfig) -> Traits:
        return draw_traits(draw, config)

    assert all(t.priorities for t in sample(traits(DEFAULT["priority-preempt"]), 100))
    stray = [t.priorities for t in sample(traits(DEFAULT["overlap-chunk16"]), 600)]
    assert 0 < sum(stray) / len(stray) < 0.2


def test_given_fields_of_a_request_are_kept() -> None:
    @st.composite
    def request(draw: Any) -> StartReq:
        traits = replace(Traits(), logprobs=True, priorities=True)
        return draw_start_req(
            draw, CONFIGS[0], "a", traits, prompt=Prompt(length=5), max_new_tokens=0, priority=7, top_logprobs_num=3
        )

    for start in sample(request(), 50):
        assert (start.prompt, start.max_new_tokens, start.priority, start.top_logprobs_num) == (Prompt(0, 5), 0, 7, 3)


def test_digits_stay_within_their_radix_and_reach_both_ends() -> None:
    @st.composite
    def digits(draw: Any) -> tuple[int, ...]:
        return draw_digits(draw, 2, 7, 40, 1)

    columns = list(zip(*sample(digits(), 1000)))
    assert [set(column) for column in columns] == [set(range(radix)) for radix in (2, 7, 40, 1)]
    with pytest.raises(ValueError, match="48 bits"):
        draw_digits(lambda strategy: b"", 1 << 30, 1 << 30)


# -- configurations --------------------------------------------------------------------------------------------


def test_the_default_set_is_valid_small_and_has_no_doubles() -> None:
    assert 10 <= len(DEFAULT) <= 14
    assert len(set(CONFIGS)) == len(DEFAULT)
    for config in CONFIGS:
        validate(Script(config, ()))


def test_the_default_set_takes_every_path() -> None:
    seen = {field: {getattr(config, field) for config in CONFIGS} for field in EngineConfig.__struct_fields__}
    assert seen["page_size"] == {1}
    assert seen["chunked_prefill_size"] == {8, 16, -1}
    for switch in ("disable_overlap_schedule", "enable_mixed_chunk", "disable_radix_cache",
                   "enable_priority_scheduling", "schedule_low_priority_values_first"):  # fmt: skip
        assert seen[switch] == {True, False}, switch
    assert seen["schedule_policy"] == {"fcfs", "lpm", "dfs-weight", "lof", "random"}
    assert {None} < seen["max_queued_requests"]
    assert max(seen["stream_interval"]) > 1
    assert max(seen["max_total_tokens"]) <= 128


def test_priority_scheduling_goes_only_with_policies_that_sglang_allows() -> None:
    for config in CONFIGS:
        assert not config.enable_priority_scheduling or config.schedule_policy in ("fcfs", "lof")


def test_a_configuration_name_means_the_same_in_every_set() -> None:
    for members in CONFIG_SETS.values():
        for name, config in members.items():
            assert re.fullmatch(r"[a-z0-9-]+", name)
            assert name not in CONFIG_SETS
            assert find_configs([name]) == {name: config}


def test_configurations_are_found_by_set_and_by_name() -> None:
    assert find_configs(["default"]) == DEFAULT
    assert list(find_configs(["lpm-chunk16", "normal-chunk8", "lpm-chunk16"])) == ["lpm-chunk16", "normal-chunk8"]
    assert list(find_configs(["normal-chunk8", "default"]))[0] == "normal-chunk8"
    assert find_configs(["normal-chunk8", "default"]) == DEFAULT


@pytest.mark.parametrize("names", [["overlap-chunk17"], ["default", ""], []])
def test_an_unknown_configuration_is_one_clear_line(names: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        find_configs(names)
    message = str(error.value)
    assert "\n" not in message
    assert all(known in message for known in (*CONFIG_SETS, *DEFAULT))
    assert not names or repr(names[-1]) in message


def test_configurations_travel_as_json() -> None:
    for config in CONFIGS:
        assert msgspec.json.decode(msgspec.json.encode(config), type=EngineConfig) == config
