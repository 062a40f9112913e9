"""Our queries give the same answers as SGLang's own, step by step."""

from __future__ import annotations

from importlib import metadata

import pytest

from sr_fuzz.script import EngineConfig


@pytest.mark.skipif(metadata.version("sglang") != "0.5.23", reason="compares with the queries of SGLang 0.5.23")
@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(max_total_tokens=256),
        EngineConfig(max_total_tokens=256, disable_overlap_schedule=True),
        EngineConfig(max_total_tokens=256, page_size=4, enable_mixed_chunk=True),
        EngineConfig(max_total_tokens=256, disable_radix_cache=True),
    ],
    ids=["overlap", "normal", "paged-mixed", "noradix"],
)
def test_queries_answer_what_sglangs_own_answer(sr_engine, config):
    outcome = sr_engine.execute("tests.scripted.same_answers:agrees_with_sglang", config=config)
    assert outcome.ok, outcome.report()
