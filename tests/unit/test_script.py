"""Scripts as data: JSON there and back, the hash, the text form, and the messages about malformed scripts."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_fuzz.oracle.function import all_prompt_tokens, continuation, prompt_tokens
from sr_fuzz.script import (
    SCHEDULE_POLICIES,
    STAGES,
    VOCAB_SIZE,
    Abort,
    AbortAll,
    Action,
    AdvanceClock,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    ExhaustLockRefs,
    ExhaustRows,
    FlushCache,
    Pause,
    Prompt,
    Release,
    Script,
    StartReq,
    Step,
    StepUntil,
    from_json,
    script_hash,
    to_json,
    validate,
)
from sr_fuzz.script.text import action_text, config_text, text

# -- scripts of every shape ------------------------------------------------------------------------------------
# The strategies of the project are not used here: they draw scripts that are worth running, these all that the types
# allow.

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,15}", fullmatch=True)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    length = draw(st.integers(1, 4096))
    uniform = draw(st.booleans())
    return Prompt(draw(st.integers(0, 255)), length, 0 if uniform else draw(st.integers(0, length)), uniform)


@st.composite
def configs(draw: st.DrawFn) -> EngineConfig:
    page = draw(st.integers(1, 64))
    return EngineConfig(
        page_size=page,
        max_total_tokens=page * draw(st.integers(-(-8 // page), 65536 // page)),
        max_running_requests=draw(st.integers(1, 256)),
        chunked_prefill_size=draw(st.just(-1) | st.integers(1, 8192 // page).map(lambda chunk: chunk * page)),
        disable_overlap_schedule=draw(st.booleans()),
        schedule_policy=draw(st.sampled_from(SCHEDULE_POLICIES)),
        schedule_conservativeness=draw(st.floats(0.01, 10.0)),
        max_queued_requests=draw(st.none() | st.integers(1, 1024)),
        stream_interval=draw(st.integers(1, 64)),
        prefix_tree=draw(st.sampled_from([None, "legacy", "unified", "rust"])),
        req_waiting_timeout=draw(st.none() | st.floats(0.5, 3600)),
        enable_hierarchical_cache=draw(st.booleans()),
        disaggregation_mode=draw(st.sampled_from(["null", "prefill", "decode"])),
    )


def starts(name: str) -> st.SearchStrategy[StartReq]:
    return st.builds(
        StartReq,
        st.just(name),
        prompts(),
        max_new_tokens=st.integers(0, 4096),
        ignore_eos=st.booleans(),
        stop_token_ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=8).map(tuple),
        priority=st.none() | st.integers(-1000, 1000),
        return_logprob=st.booleans(),
        logprob_start_len=st.integers(-1, 4096),
        top_logprobs_num=st.integers(0, 8),
        stream=st.booleans(),
    )


sizes = st.integers(0, 65536)
others: st.SearchStrategy[Action] = st.one_of(
    st.builds(Step, st.integers(1, 1000)),
    st.builds(StepUntil, names, st.sampled_from(STAGES), st.integers(1, 1000), st.integers(1, 1000)),
    st.builds(Pause, st.sampled_from(["retract", "in_place", "abort"])),
    st.builds(Abort, names, st.booleans()),
    st.builds(AbortAll, st.booleans()),
    st.builds(EvictRadix, st.none() | st.integers(1, 65536)),
    st.builds(AdvanceClock, st.floats(0.5, 86400)),
    st.builds(ExhaustKv, sizes),
    st.builds(ExhaustLockRefs, sizes),
    st.builds(ExhaustRows, sizes),
    st.sampled_from([Continue(), FlushCache(), Release()]),
)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    started = draw(st.lists(names, unique=True, max_size=4))
    actions = [draw(starts(name)) for name in started] + draw(st.lists(others, max_size=12))
    return Script(draw(configs()), tuple(draw(st.permutations(actions))))


# One fixed script, for the hash and the text.
EXAMPLE = Script(
    EngineConfig(page_size=4, chunked_prefill_size=8, schedule_policy="lpm", schedule_conservativeness=0.03),
    (
        StartReq("r0", Prompt(0, 40, 3), max_new_tokens=8),
        StartReq(
            "r1", Prompt(1, 9), max_new_tokens=0, ignore_eos=True, stop_token_ids=(2, 5), priority=-1, stream=False
        ),
        StepUntil("r0", "nth_chunk", nth=2),
        Pause(),
        Pause("in_place"),
        Abort("r0"),
        Abort("r1", await_arrival=False),
        Continue(),
        Step(),
        Step(3),
        EvictRadix(),
        EvictRadix(16),
        ExhaustKv(2),
        ExhaustLockRefs(),
        ExhaustRows(1),
        Release(),
        AbortAll(),
        FlushCache(),
    ),
)


# -- JSON ------------------------------------------------------------------------------------------------------


@given(scripts(), st.sampled_from([0, 2]))
def test_json_gives_the_same_script_back(script: Script, indent: int) -> None:
    assert from_json(to_json(script, indent=indent)) == script


@given(scripts())
def test_a_script_of_allowed_values_is_valid(script: Script) -> None:
    assert validate(script) == script


def test_defaults_are_left_out_of_the_file_and_the_format_is_not() -> None:
    assert json.loads(to_json(Script(EngineConfig(), (Step(), Abort("r0"))))) == {
        "config": {},
        "actions": [{"action": "step"}, {"action": "abort", "name": "r0"}],
        "format": 1,
    }


def test_a_file_without_a_format_is_read_as_the_present_one() -> None:
    assert from_json('{"config": {}, "actions": [{"action": "step"}]}') == Script(EngineConfig(), (Step(),))


def test_a_text_is_read_like_bytes() -> None:
    assert from_json(to_json(EXAMPLE).decode()) == EXAMPLE


def test_chunking_may_be_off_with_any_page_size() -> None:
    script = Script(EngineConfig(page_size=16, chunked_prefill_size=-1), ())
    assert from_json(to_json(script)) == script


def test_scripts_are_immutable() -> None:
    with pytest.raises(AttributeError):
        EXAMPLE.config.page_size = 2  # type: ignore[misc]


def test_names_are_those_of_the_started_requests_in_order() -> None:
    assert EXAMPLE.names == ("r0", "r1")


@pytest.mark.parametrize("action", [ExhaustKv(), ExhaustLockRefs(), ExhaustRows()])
def test_a_script_knows_whether_it_uses_exhausters(action: Action) -> None:
    assert Script(EngineConfig(), (Step(), action)).uses_exhausters
    assert not Script(EngineConfig(), (Step(), Release())).uses_exhausters


# -- hash ------------------------------------------------------------------------------------------------------


def test_the_hash_of_a_script_does_not_change() -> None:
    # Saved findings and the memo of outcomes are keyed by it. If this fails, the canonical form has changed: decide
    # whether FORMAT_VERSION must change with it, and only then write the new value here.
    assert script_hash(EXAMPLE) == "5bacdea3e8ceb391"


@given(scripts())
def test_the_hash_survives_a_file(script: Script) -> None:
    assert script_hash(from_json(to_json(script, indent=1))) == script_hash(script)


def test_the_hash_does_not_depend_on_the_order_of_fields_or_on_written_out_defaults() -> None:
    one = '{"config": {"page_size": 4, "stream_interval": 2}, "actions": [{"action": "step", "n": 1}], "format": 1}'
    two = '{"actions": [{"action": "step"}], "config": {"stream_interval": 2, "page_size": 4}}'
    assert script_hash(from_json(one)) == script_hash(from_json(two))


@pytest.mark.parametrize(
    "other",
    [
        Script(EXAMPLE.config, EXAMPLE.actions[:-1]),
        Script(EXAMPLE.config, EXAMPLE.actions[:-2] + EXAMPLE.actions[:-3:-1]),
        Script(EngineConfig(), EXAMPLE.actions),
    ],
    ids=["shorter", "other order", "other configuration"],
)
def test_another_script_has_another_hash(other: Script) -> None:
    assert script_hash(other) != script_hash(EXAMPLE)


# -- text ------------------------------------------------------------------------------------------------------


def test_the_text_of_a_script() -> None:
    assert text(EXAMPLE) == (
        "[page_size=4 chunked_prefill_size=8 schedule_policy=lpm schedule_conservativeness=0.03] "
        "r0 = start_req(0:40+3, new=8); "
        "r1 = start_req(1:9, new=0, ignore_eos, stop_token_ids=(2, 5), priority=-1, stream=False); "
        "step_until(r0, nth_chunk, nth=2); "
        "pause(retract); pause(in_place); abort(r0); abort(r1, await_arrival=False); continue; "
        "step(1); step(3); evict_radix; evict_radix(num_tokens=16); "
        "exhaust_kv(2); exhaust_lock_refs(0); exhaust_rows(1); release; abort_all; flush_cache"
    )


def test_the_text_says_when_a_prompt_is_uniform() -> None:
    assert action_text(StartReq("r0", Prompt(2, 40, uniform=True))) == "r0 = start_req(2:40, uniform, new=8)"


def test_a_prompt_after_a_request_is_what_that_one_read_and_generated() -> None:
    first = StartReq("r0", Prompt(length=6), 5)
    second = StartReq("r1", Prompt(length=12, unique_tail=2, after="r0"))
    third = StartReq("r2", Prompt(length=13, after="r1"))
    within = StartReq("r3", Prompt(length=4, after="r0"))
    tokens = all_prompt_tokens([first, Step(3), second, third, within])
    generated = continuation(tokens["r0"])
    assert tokens["r1"][:10] == tokens["r0"] + [next(generated) for _ in range(4)]
    assert tokens["r2"] == [*tokens["r1"], next(continuation(tokens["r1"]))]
    assert tokens["r3"] == tokens["r0"][:4]
    assert action_text(second) == "r1 = start_req(r0:12+2, new=8)"


def test_a_uniform_prompt_is_one_token_that_its_family_shares() -> None:
    one, longer = (prompt_tokens(Prompt(7, length, uniform=True), name) for length, name in ((4, "r0"), (9, "r1")))
    assert len(one) == 4 and len(set(one)) == 1 and longer == one[:1] * 9
    other = prompt_tokens(Prompt(8, 4, uniform=True), "r0")
    assert set(one) != set(other)
    assert all(2 < token < VOCAB_SIZE for token in [*one, *other])


def test_the_text_of_the_default_configuration() -> None:
    assert config_text(EngineConfig()) == "default"


@given(scripts())
def test_the_text_is_one_line(script: Script) -> None:
    assert text(script).isprintable()


@given(others)
def test_the_text_of_an_action_begins_with_its_tag(action: Action) -> None:
    assert action_text(action).split("(")[0] == msgspec.to_builtins(action)["action"]
