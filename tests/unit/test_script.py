"""Scripts as data: JSON there and back, the hash, the text form, and what is said of a malformed one."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_fuzz.cpu.oracle import all_prompt_tokens, continuation, prompt_tokens
from sr_fuzz.script import (
    MAX_ACTIONS,
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
    ScriptError,
    StartReq,
    Step,
    StepUntil,
    from_json,
    script_hash,
    to_json,
    validate,
)
from sr_fuzz.script_text import action_text, config_text, text

# -- scripts of every shape ------------------------------------------------------------------------------------
# Not the strategies of the project: those draw scripts that are good to run, these all that the types allow.

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


# One script, written out, for the hash and the text.
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


# -- malformed scripts -----------------------------------------------------------------------------------------


def config(**fields: Any) -> str:
    return json.dumps({"config": fields, "actions": []})


def action(tag: Any, **fields: Any) -> str:
    return json.dumps({"config": {}, "actions": [{"action": "step"}, {"action": tag, **fields}]})


ACTIONS = (
    "start_req, step, step_until, pause, continue, abort, abort_all, flush_cache, evict_radix, "
    "exhaust_kv, exhaust_lock_refs, exhaust_rows, release, advance_clock, open_session, close_session"
)
NAME = "expected a name: a letter, then at most 15 letters, digits or underscores"
CONFIG_FIELDS = ", ".join(EngineConfig.__struct_fields__)

MALFORMED = {
    "empty": ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
    "cut off": ('{"config": {},\n"act', "not JSON: Unterminated string starting at: line 2 column 1 (char 15)"),
    "more after it": ('{"config": {}, "actions": []} 1', "not JSON: Extra data: line 1 column 31 (char 30)"),
    "no text": (b"\xff", "not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    "too deep": ("[" * 100_000, "nested too deeply to be a script"),
    "field twice": ('{"config": {}, "config": {}}', "field `config` is given twice in one object"),
    "a list": ("[]", "expected an object with the fields config, actions, got a list of 0 items"),
    "null": ("null", "expected an object with the fields config, actions, got null"),
    "no actions": ('{"config": {}}', "field `actions` is missing; the fields are config, actions, format"),
    "no config": ('{"actions": []}', "field `config` is missing; the fields are config, actions, format"),
    "unknown field": (
        '{"config": {}, "actions": [], "seed": 1}',
        "unknown field `seed`; the fields are config, actions, format",
    ),
    "line break in a field": (
        r'{"config": {}, "actions": [], "a\nb": 1}',
        r"unknown field `a\nb`; the fields are config, actions, format",
    ),
    "newer format": (
        '{"config": {}, "actions": [], "format": 2}',
        "format: this version of sr_fuzz reads format 1, the file has 2",
    ),
    "format no number": (
        '{"config": {}, "actions": [], "format": true}',
        "format: this version of sr_fuzz reads format 1, the file has true",
    ),
    "config no object": (
        '{"config": 3, "actions": []}',
        f"config: expected an object with the fields {CONFIG_FIELDS}, got 3",
    ),
    "unknown setting": (config(pagesize=4), f"config: unknown field `pagesize`; the fields are {CONFIG_FIELDS}"),
    "below range": (config(page_size=0), "config.page_size: expected a whole number from 1 to 64, got 0"),
    "above range": (config(page_size=65), "config.page_size: expected a whole number from 1 to 64, got 65"),
    "huge": (
        config(max_total_tokens=10**90),
        f"config.max_total_tokens: expected a whole number from 8 to 65536, got 1{'0' * 56}...",
    ),
    "number as text": (config(page_size="4"), 'config.page_size: expected a whole number from 1 to 64, got "4"'),
    "fraction": (config(page_size=1.5), "config.page_size: expected a whole number from 1 to 64, got 1.5"),
    "neither number nor null": (
        config(max_queued_requests="none"),
        'config.max_queued_requests: expected a whole number from 1 to 1024, or null, got "none"',
    ),
    "NaN": (
        '{"config": {"schedule_conservativeness": NaN}, "actions": []}',
        "config.schedule_conservativeness: expected a number from 0.01 to 10, got NaN",
    ),
    "infinite": (
        '{"config": {"schedule_conservativeness": 1e999}, "actions": []}',
        "config.schedule_conservativeness: expected a number from 0.01 to 10, got Infinity",
    ),
    "no boolean": (config(disable_radix_cache=1), "config.disable_radix_cache: expected true or false, got 1"),
    "unknown policy": (
        config(schedule_policy="fifo"),
        'config.schedule_policy: expected one of dfs-weight, fcfs, hrrn, lof, lpm, random, routing-key, got "fifo"',
    ),
    "half a page in the pool": (
        config(max_total_tokens=130, page_size=4),
        "config.max_total_tokens: expected a multiple of page_size 4, got 130",
    ),
    "half a page in a chunk": (
        config(chunked_prefill_size=6, page_size=4),
        "config.chunked_prefill_size: expected -1 (off) or a multiple of page_size 4, got 6",
    ),
    "no chunk": (
        config(chunked_prefill_size=0),
        "config.chunked_prefill_size: expected -1 (off) or a multiple of page_size 1, got 0",
    ),
    "actions no list": (
        '{"config": {}, "actions": {}}',
        f"actions: expected a list of at most 500 items, each an object whose `action` is one of {ACTIONS}, "
        "got an object",
    ),
    "too many actions": (
        json.dumps({"config": {}, "actions": [{"action": "step"}] * (MAX_ACTIONS + 1)}),
        f"actions: expected a list of at most 500 items, each an object whose `action` is one of {ACTIONS}, "
        "got a list of 501 items",
    ),
    "action no object": (
        '{"config": {}, "actions": ["step"]}',
        f'actions[0]: expected an object whose `action` is one of {ACTIONS}, got "step"',
    ),
    "action without tag": (
        '{"config": {}, "actions": [{"n": 1}]}',
        f"actions[0]: field `action` is missing; expected an object whose `action` is one of {ACTIONS}",
    ),
    "unknown action": (action("stop"), f'actions[1].action: expected one of {ACTIONS}, got "stop"'),
    "tag no text": (action([1]), f"actions[1].action: expected one of {ACTIONS}, got a list of 1 items"),
    "unknown argument": (action("step", m=1), "actions[1]: unknown field `m`; the fields are action, n"),
    "argument missing": (
        action("abort"),
        "actions[1]: field `name` is missing; the fields are action, name, await_arrival",
    ),
    "argument below range": (action("step", n=0), "actions[1].n: expected a whole number from 1 to 1000, got 0"),
    "unknown mode": (
        action("pause", mode="soft"),
        'actions[1].mode: expected one of abort, in_place, retract, got "soft"',
    ),
    "unknown stage": (
        action("step_until", name="r0", stage="decode"),
        "actions[1].stage: expected one of finished, first_chunk, first_decode, last_chunk, last_decode, mid_decode, "
        'nth_chunk, retracted, waiting, got "decode"',
    ),
    "name begins with a digit": (action("abort", name="0r"), f'actions[1].name: {NAME}, got "0r"'),
    "name too long": (action("abort", name="r" * 17), f'actions[1].name: {NAME}, got "rrrrrrrrrrrrrrrrr"'),
    "line break after a name": (action("abort", name="r0\n"), rf'actions[1].name: {NAME}, got "r0\n"'),
    "name no text": (action("abort", name=7), f"actions[1].name: {NAME}, got 7"),
    "no such token": (
        action("start_req", name="r0", stop_token_ids=[1, VOCAB_SIZE]),
        "actions[1].stop_token_ids[1]: expected a whole number from 0 to 63, got 64",
    ),
    "too many stop tokens": (
        action("start_req", name="r0", stop_token_ids=[1] * 9),
        "actions[1].stop_token_ids: expected a list of at most 8 items, each a whole number from 0 to 63, "
        "got a list of 9 items",
    ),
    "empty prompt": (
        action("start_req", name="r0", prompt={"length": 0}),
        "actions[1].prompt.length: expected a whole number from 1 to 4096, got 0",
    ),
    "unknown part of a prompt": (
        action("start_req", name="r0", prompt={"size": 1}),
        "actions[1].prompt: unknown field `size`; the fields are family, length, unique_tail, uniform, after",
    ),
    "tail longer than its prompt": (
        action("start_req", name="r0", prompt={"length": 5, "unique_tail": 6}),
        "actions[1].prompt.unique_tail: expected 0 to the prompt's length 5, got 6",
    ),
    "tail of a uniform prompt": (
        action("start_req", name="r0", prompt={"length": 5, "unique_tail": 3, "uniform": True}),
        "actions[1].prompt.unique_tail: expected 0, since the prompt is uniform, got 3",
    ),
    "prompt after itself": (
        action("start_req", name="r0", prompt={"length": 5, "after": "r0"}),
        "actions[1].prompt.after: expected a request started before r0, got r0",
    ),
    "uniform prompt after another": (
        json.dumps(
            {
                "config": {},
                "actions": [
                    {"action": "start_req", "name": "r0"},
                    {"action": "start_req", "name": "r1", "prompt": {"uniform": True, "after": "r0"}},
                ],
            }
        ),
        "actions[1].prompt.after: expected none, since the prompt is uniform, got r0",
    ),
    "name started twice": (
        json.dumps({"config": {}, "actions": [{"action": "start_req", "name": "r0"}] * 2}),
        "actions[1].name: r0 is already started by actions[0]; a name stands for one request",
    ),
}


@pytest.mark.parametrize(("data", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_script_is_refused_in_one_line(data: str | bytes, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        from_json(data, source="a.json")
    assert str(caught.value) == f"a.json: {message}"


some_fields = st.sampled_from(["config", "actions", "action", "name", "prompt", "n"]) | st.text(max_size=3)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(some_fields, inner),
    max_leaves=12,
)


@given(st.lists(anything, max_size=3), anything)
def test_any_json_is_a_script_or_is_refused_in_one_line(actions: list[Any], more: Any) -> None:
    for data in (
        more,
        {"config": more, "actions": actions},
        {"config": {}, "actions": [{"action": "step", "n": more}]},
    ):
        try:
            script = from_json(json.dumps(data))
        except ScriptError as error:
            assert str(error).isprintable()
        else:
            assert from_json(to_json(script)) == script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            Script(EngineConfig(schedule_conservativeness=math.nan), ()),
            "script: config.schedule_conservativeness: expected a number from 0.01 to 10, got NaN",
        ),
        (
            Script(EngineConfig(), (Pause("soft"),)),  # type: ignore[arg-type]
            'script: actions[0].mode: expected one of abort, in_place, retract, got "soft"',
        ),
        (
            Script(EngineConfig(), (), format=0),
            "script: format: this version of sr_fuzz reads format 1, the file has 0",
        ),
        (
            Script(EngineConfig(page_size=object()), ()),  # type: ignore[arg-type]
            "script: holds a value that JSON cannot express: Encoding objects of type object is unsupported",
        ),
    ],
    ids=["NaN", "unknown mode", "format", "no JSON"],
)
def test_a_script_built_in_python_is_checked_like_a_file(script: Script, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        validate(script)
    assert str(caught.value) == message
