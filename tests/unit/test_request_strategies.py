"""The requests and prompts that strategies draw."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import strategies as st
from sampling import CONFIGS, DEFAULT, assert_found, sample
from sr_fuzz.strategies.requests import (
    Traits,
    draw_digits,
    draw_relative,
    draw_start_req,
    draw_traits,
    prompts,
    start_reqs,
)

from sr_fuzz.oracle.function import all_prompt_tokens, continuation
from sr_fuzz.script import (
    EngineConfig,
    Prompt,
    Script,
    StartReq,
    validate,
)  # fmt: skip


def test_a_relative_prompt_shares_a_prefix_and_leaves_it_everywhere() -> None:
    """Beyond its end, where the answer was, at its end, at a page, one token beside it, and inside."""
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
    """Of the chunk, and of the pool: with 96 tokens, 89 is the longest prompt that SGLang accepts."""
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
