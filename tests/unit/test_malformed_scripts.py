"""A script that cannot be read or is not valid is refused in one line that names the field."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_fuzz.script import (
    MAX_ACTIONS,
    VOCAB_SIZE,
    Action,
    EngineConfig,
    Pause,
    Script,
    ScriptError,
    from_json,
    to_json,
    validate,
)


def config(**fields: Any) -> str:
    return json.dumps({"config": fields, "actions": []})


def action(tag: Any, **fields: Any) -> str:
    return json.dumps({"config": {}, "actions": [{"action": "step"}, {"action": tag, **fields}]})


ACTIONS = ", ".join(kind.__struct_config__.tag for kind in get_args(Action))
NAME = "expected a name: a letter, then at most 15 letters, digits or underscores; not HEALTH_CHECK at its start"
CONFIG_FIELDS = f"{', '.join(EngineConfig.__struct_fields__[:16])} and {len(EngineConfig.__struct_fields__) - 16} more"
THE_FIELDS = f"the fields are {CONFIG_FIELDS}, those of sr_fuzz.script.engine_config.EngineConfig"

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
    "unknown setting": (
        config(pagesize=4), "config: unknown field `pagesize`; did you mean page_size or tp_size or pp_size?"
    ),
    "setting like no other": (
        config(zz=4),
        f"config: unknown field `zz`; {THE_FIELDS}",
    ),
    "no time at all": (
        config(req_waiting_timeout=-1),
        "config.req_waiting_timeout: expected a number above 0 and up to 3600, or null, got -1"
    ),
    "half a character": (
        '{"config": {"schedule_policy": "\\ud800"}, "actions": []}',
        r'config.schedule_policy: "\ud800" has half of a character in it',
    ),
    "half a character as a name": (
        '{"config": {}, "actions": [{"action": "abort", "name": "\\ud800"}]}', rf'actions[0].name: {NAME}, got "\ud800"'
    ),
    "half a character as a field": (
        '{"config": {}, "actions": [], "\\ud800": 1}', r'"\ud800" has half of a character in it'
    ),
    "half a character as a field below": (
        '{"config": {"a": {"\\ud800": 1}}, "actions": []}',
        f"config: unknown field `a`; {THE_FIELDS}",
    ),
    "a field that reads like the place of an error": (
        '{"config": {}, "actions": [], "x - at `$.config": 1}',
        "unknown field `x - at `$.config`; the fields are config, actions, format",
    ),
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
    "clock that stands still": (
        action("advance_clock", seconds=0), "actions[1].seconds: expected a number above 0 and up to 86400, got 0"
    ),
    "clock set by a text": (
        action("advance_clock", seconds="x"), 'actions[1].seconds: expected a number above 0 and up to 86400, got "x"'
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
    "name of SGLang's own health check": (
        action("start_req", name="HEALTH_CHECK1"), f'actions[1].name: {NAME}, got "HEALTH_CHECK1"'
    ),
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
