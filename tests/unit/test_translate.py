"""What a user relies on: a translated script can be played by SGLang's public API, and is close to the original."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sr_fuzz.strategies.configs import CONFIG_SETS
from sr_fuzz.strategies.scripts import scripts

from sr_fuzz.emit.public_api import NotExpressible, to_public_api
from sr_fuzz.oracle.function import uniform_token
from sr_fuzz.script import (
    Abort,
    AbortAll,
    Action,
    Continue,
    EngineConfig,
    EvictRadix,
    ExhaustKv,
    ExhaustRows,
    FlushCache,
    Pause,
    Prompt,
    Release,
    Script,
    StartReq,
    Step,
    StepUntil,
    validate,
)

R0 = StartReq("r0", Prompt(length=20, unique_tail=3), 5)
R1 = StartReq("r1", Prompt(length=30, unique_tail=2), 5)


def translated(*actions: Action, **options: bool) -> tuple[Action, ...]:
    return to_public_api(Script(EngineConfig(), actions), **options).actions


def without_starts(*actions: Action) -> tuple[Action, ...]:
    return tuple(action for action in translated(*actions) if not isinstance(action, StartReq))


def prompts(*actions: Action, **options: bool) -> list[Prompt]:
    return [action.prompt for action in translated(*actions, **options) if isinstance(action, StartReq)]


# -- prompts ---------------------------------------------------------------------------------------------------


def test_prompts_become_uniform_and_keep_length_and_family():
    one, two, other = prompts(R0, R1, StartReq("r2", Prompt(family=9, length=7)))
    assert [prompt.length for prompt in (one, two, other)] == [20, 30, 7]
    assert all(prompt.uniform and not prompt.unique_tail for prompt in (one, two, other))
    assert one.family == two.family != other.family


def test_families_with_the_same_token_are_told_apart():
    one, two = prompts(StartReq("r0", Prompt(family=1)), StartReq("r1", Prompt(family=62)))
    assert uniform_token(1) == uniform_token(62)
    assert uniform_token(one.family) != uniform_token(two.family)


def test_a_prompt_after_another_shares_its_token():
    first, second = StartReq("r0", Prompt(3, 6), 4), StartReq("r1", Prompt(1, 12, after="r0"))
    one, two = prompts(first, Step(9), second)
    assert uniform_token(one.family) == uniform_token(two.family)
    assert (two.length, two.after) == (12, None)


def test_prefixes_can_be_kept_apart_instead():
    one, two = prompts(R0, R1, share_prefixes=False)
    assert uniform_token(one.family) != uniform_token(two.family)


def test_a_request_ends_where_it_did():
    """The oracle's output follows from the prompt, and so does its EOS: here it comes after 8 tokens and not at
    once."""
    from sr_fuzz.oracle.function import continuation, prompt_tokens

    def length(prompt: Prompt) -> int:
        output = continuation(prompt_tokens(prompt, "r0"))
        return next(count for count in range(1, 1000) if next(output) == 2)

    endless = next(Prompt(family, 8) for family in range(256) if length(Prompt(family, 8)) > 60)
    (prompt,) = prompts(StartReq("r0", endless, max_new_tokens=50))
    assert length(prompt) >= 50


# -- what the tokenizer manager lets through -------------------------------------------------------------------


def test_a_request_sent_while_paused_comes_with_the_continue():
    kinds = [type(a) for a in translated(Pause("retract"), R0, Step(2), Continue(), Step(1))]
    assert kinds == [Pause, Step, Continue, StartReq, Step]


def test_a_pause_that_nobody_ends_is_ended_for_who_was_held_back():
    assert [type(a) for a in translated(Pause("in_place"), R0, Step(2))] == [Pause, Step, Continue, StartReq]


def test_a_request_that_is_aborted_while_it_is_held_back_never_comes():
    assert translated(Pause("retract"), R0, Abort("r0"), Continue()) == (Pause("retract"), Continue())


def test_a_pause_with_abort_aborts_everybody_and_pauses_nobody():
    assert [type(a) for a in translated(Pause("abort"), R0)] == [AbortAll, StartReq]


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ((Abort("r0"), Step(1), Abort("r0")), (Abort("r0"), Step(1))),
        ((Abort("r7"), Step(1)), (Step(1),)),
        ((AbortAll(), Abort("r0")), (AbortAll(),)),
        ((FlushCache(), FlushCache(), Step(1), FlushCache()), (FlushCache(), Step(1), FlushCache())),
    ],
    ids=["aborted twice", "never started", "after an abort of all", "flushed twice in a step"],
)
def test_what_would_not_arrive_is_left_out(sent: tuple[Action, ...], left: tuple[Action, ...]):
    assert without_starts(R0, *sent) == left


def test_an_abort_whose_arrival_nobody_awaits_comes_one_step_later():
    late = Abort("r0", await_arrival=False)
    assert without_starts(R0, late, FlushCache(), Step(3)) == (FlushCache(), Step(1), Abort("r0"), Step(2))
    assert without_starts(R0, late) == (Step(1), Abort("r0"))
    assert without_starts(R0, AbortAll(await_arrival=False), Step(1)) == (Step(1), AbortAll())


def test_waiting_for_what_cannot_come_is_a_number_of_steps():
    until = StepUntil("r0", "first_decode", max_steps=9)
    assert without_starts(until, R0, until) == (Step(9), until)
    assert without_starts(R0, Pause("retract"), until) == (Pause("retract"), Step(9))


def test_every_request_streams():
    (start,) = translated(StartReq("r0", stream=False))
    assert isinstance(start, StartReq) and start.stream


def test_what_is_held_is_given_back_at_the_end():
    assert without_starts(ExhaustKv(3), Step(1), Release(), Release()) == (ExhaustKv(3), Step(1))
    assert without_starts(Release(), Step(2)) == (Step(2),)


# -- what the public API cannot express ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "complaint"),
    [
        ((R0, EvictRadix(4)), "actions[1] evict_radix(num_tokens=4): the API evicts by flushing the whole cache"),
        ((ExhaustKv(1), Release(), Step(2)), "actions[2] step(2): what an exhauster holds is only given back"),
        ((Pause(), ExhaustRows(1)), "actions[1] exhaust_rows(1): a paused server holds new requests back"),
    ],
)
def test_what_cannot_be_said_is_one_line_that_names_the_action(actions: tuple[Action, ...], complaint: str):
    with pytest.raises(NotExpressible) as caught:
        translated(*actions)
    assert str(caught.value).startswith(complaint) and "\n" not in str(caught.value)


def test_an_engine_of_several_processes_is_not_translated():
    with pytest.raises(NotExpressible, match="config: only one scheduler process can be driven, not 2"):
        to_public_api(Script(EngineConfig(tp_size=2), (R0,)))


# -- any script ------------------------------------------------------------------------------------------------


@settings(
    derandomize=True, max_examples=150, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(scripts(list(CONFIG_SETS["default"].values())))
def test_a_translation_is_a_valid_script_that_stays_as_it_is(script: Script):
    try:
        result = to_public_api(script)
    except NotExpressible:
        return
    validate(result)
    assert to_public_api(result) == result
    assert set(result.names) <= set(script.names)
