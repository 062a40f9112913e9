"""What `StepUntil` waits for, and that the tests for SGLang's own suite wait for the same."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import get_args

import pytest

from sr_fuzz.emit.sglang_script import _reached
from sr_fuzz.play.stages import Progress, condition, reached
from sr_fuzz.script import EngineConfig, Prompt, StartReq, StepUntil
from sr_fuzz.script.actions import Stage

START = StartReq("r0", Prompt(0, 40), max_new_tokens=9)
NOTHING = Progress(chunks=0, tokens=0, waiting=False, retracted=False, ended=False)


@pytest.mark.parametrize(
    ("action", "before", "at"),
    [
        (StepUntil("r0", "first_chunk"), {"waiting": True}, {"chunks": 1}),
        (StepUntil("r0", "nth_chunk", nth=3), {"chunks": 2}, {"chunks": 3}),
        (StepUntil("r0", "nth_chunk", nth=30), {"chunks": 3}, {"tokens": 1}),
        (StepUntil("r0", "last_chunk"), {"chunks": 1}, {"chunks": 2}),
        (StepUntil("r0", "first_decode"), {"chunks": 3}, {"tokens": 1}),
        (StepUntil("r0", "mid_decode"), {"tokens": 3}, {"tokens": 4}),
        (StepUntil("r0", "last_decode"), {"tokens": 7}, {"tokens": 8}),
        (StepUntil("r0", "waiting"), {"ended": True}, {"waiting": True}),
        (StepUntil("r0", "retracted"), {"tokens": 8}, {"retracted": True}),
        (StepUntil("r0", "retracted"), {"tokens": 9}, {"ended": True}),
        (StepUntil("r0", "finished"), {"tokens": 9}, {"ended": True}),
        (StepUntil("r0", "last_decode"), {"tokens": 7}, {"ended": True}),
    ],
)
def test_a_stage_is_reached_from_one_point_on(action: StepUntil, before: dict, at: dict):
    wanted = condition(action, START, EngineConfig())
    assert not reached(wanted, NOTHING._replace(**before))
    assert reached(wanted, NOTHING._replace(**at))


def test_the_end_of_an_output_is_that_of_the_clipped_one():
    """A pool of 128 tokens leaves 86 to a prompt of 40; of pages of 16 tokens it leaves 63."""
    endless, last = StartReq("r0", Prompt(0, 40), max_new_tokens=4096), StepUntil("r0", "last_decode")
    assert condition(last, endless, EngineConfig(max_total_tokens=128)).tokens == 85
    assert condition(last, endless, EngineConfig(max_total_tokens=128, page_size=16)).tokens == 62
    assert condition(last, endless, EngineConfig(max_total_tokens=65536)).tokens == 4053
    assert "_output_len(r) >= 85" in _reached(last, endless, EngineConfig(max_total_tokens=128), "r")
    # What SGLang says is believed.
    assert condition(last, endless, EngineConfig(), max_new_tokens=7).tokens == 6


def test_a_prompt_that_is_not_cut_has_one_extend():
    for chunk_size, prompt_len in ((-1, 40), (64, 40), (16, 3)):
        start = StartReq("r0", Prompt(0, prompt_len), 1)
        wanted = condition(StepUntil("r0", "last_chunk"), start, EngineConfig(chunked_prefill_size=chunk_size))
        assert wanted.chunks == 1


@pytest.mark.parametrize("stage", get_args(Stage))
@pytest.mark.parametrize("chunk_size", [16, -1])
def test_the_source_for_sglangs_suite_says_the_same(stage: str, chunk_size: int):
    action, config = StepUntil("r0", stage, nth=2), EngineConfig(chunked_prefill_size=chunk_size)
    source = _reached(action, START, config, "r")
    wanted = condition(action, START, config)
    for chunks, tokens, waiting, retracted, ended in product((0, 1, 2, 3), (0, 1, 4, 8), *[(False, True)] * 3):
        now = Progress(chunks, tokens, waiting, retracted, ended)
        req = SimpleNamespace(output_ids=[7] * tokens, retraction_count=int(retracted))
        handle = SimpleNamespace(
            req=req, chunks_done=chunks, status="waiting" if waiting else "running", finished=ended
        )
        names = {"r": handle, "_output_len": lambda r: len(r.req.output_ids)}
        assert bool(eval(source, names)) == reached(wanted, now), (source, now)
