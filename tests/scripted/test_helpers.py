"""The messages of the step helpers when they give up. A handle that never changes is enough for that."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sr_fuzz.testing import scripted_runtime as helpers


def handle(**fields):
    known = {"rid": "r7", "finished": False, "status": "running", "chunks_done": 0, "req": None}
    return SimpleNamespace(**known | fields)


def steps(generator) -> int:
    return sum(1 for _ in generator)


def gives_up(generator, text):
    with pytest.raises(AssertionError, match=text):
        steps(generator)


def test_a_predicate_that_never_holds():
    gives_up(helpers.run_until(handle(), lambda h: False, max_steps=3), r"3 steps \(request r7, status running\)")


def test_a_request_that_never_ends():
    gives_up(helpers.run_until_finished(handle(), max_steps=3), "within 3 steps")


def test_several_of_which_one_never_ends_names_it():
    handles = [handle(finished=True, rid="r1"), handle(rid="r2")]
    text = r"1 of 2 requests unfinished after 3 steps: \['r2'\]"
    gives_up(helpers.run_until_all_finished(handles, max_steps=3), text)


def test_a_request_that_finished_once_stays_finished():
    answers = iter([True, False, False])

    class Once:
        rid = "r1"

        @property
        def finished(self):
            return next(answers)

    class Later:
        rid = "r2"
        looks = 0

        @property
        def finished(self):
            self.looks += 1
            return self.looks == 3

    assert steps(helpers.run_until_all_finished([Once(), Later()])) == 2


@pytest.mark.parametrize(
    "stage, text",
    [
        ("first_chunk", "chunk 1 not reached within 3 steps .chunks_done=0"),
        ("last_chunk", "chunk 2 not reached"),
        ("first_decode", "output length 1 not reached"),
        ("mid_decode", "output length 4 not reached"),
        ("last_decode", "output length 7 not reached"),
        ("no_such", "unknown lifecycle stage 'no_such'; the stages are first_chunk, last_chunk"),
    ],
)
def test_a_stage_that_is_never_reached(stage, text):
    still = handle(req=SimpleNamespace(output_ids=[]))
    gives_up(
        helpers.advance_to_lifecycle_stage(still, stage, num_middle_chunks=2, max_new_tokens=8, max_steps=3), text
    )


@pytest.mark.parametrize(
    "stage, fields",
    [
        ("first_chunk", {"chunks_done": 1}),
        ("last_chunk", {"chunks_done": 2}),
        ("first_decode", {"req": SimpleNamespace(output_ids=[9])}),
        ("mid_decode", {"req": SimpleNamespace(output_ids=[9] * 4)}),
        ("last_decode", {"req": SimpleNamespace(output_ids=[9] * 7)}),
    ],
)
def test_a_stage_that_is_reached_takes_no_further_step(stage, fields):
    there = handle(**fields)
    assert steps(helpers.advance_to_lifecycle_stage(there, stage, num_middle_chunks=2, max_new_tokens=8)) == 0


def test_a_request_that_ends_before_its_stage():
    gives_up(helpers.advance_to_nth_chunk(handle(finished=True), 5), "request r7 finished before it reached chunk 5")
    gives_up(helpers.advance_to_decode_step(handle(finished=True), 5), "finished before it reached output length 5")


@pytest.mark.parametrize("prompt", [[], [1, 2]])
def test_a_prompt_that_the_cache_cannot_be_warmed_with(prompt):
    gives_up(helpers.warmup_radix(None, prompt), "warmup_radix needs a non-empty prompt of equal tokens")


def test_rows_that_never_fill():
    pool = SimpleNamespace(available_size=lambda: 5)
    t = SimpleNamespace(
        scheduler=SimpleNamespace(req_to_token_pool=pool, max_req_len=100), start_req=lambda **_: handle()
    )
    gives_up(helpers.exhaust_row_pool(t, leave_rows=2, max_steps=3), "5 rows free after 3 steps, wanted 2")


def test_ballast_asks_for_no_more_than_a_request_may_have():
    asked = []
    pool = SimpleNamespace(available_size=lambda: 4 - len(asked))
    t = SimpleNamespace(
        scheduler=SimpleNamespace(req_to_token_pool=pool, max_req_len=100),
        start_req=lambda **fields: asked.append(fields),
    )
    assert steps(helpers.exhaust_row_pool(t, leave_rows=2)) == 0
    assert asked == [{"prompt_len": 1, "max_new_tokens": 98, "ignore_eos": True}] * 2


def test_an_engine_that_never_drains():
    t = SimpleNamespace(is_fully_idle=True, engine_stats=lambda: {"req_pool_free": 1, "req_pool_total": 6})
    gives_up(helpers.drain_until_released(t, max_steps=3), "not released after 3 steps: .*'req_pool_free': 1")
