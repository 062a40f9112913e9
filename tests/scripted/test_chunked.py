"""Chunked prefill on the local engine, with all invariants on."""

from __future__ import annotations

import pytest

from sr_fuzz.script import EngineConfig
from sr_fuzz.testing.scripted_runtime import LIFECYCLE_STAGES

HERE = "tests.scripted.chunked"

# Room for the longest prompts here, so that no resource runs short.
ROOM = 1024

CONFIGS = {
    "overlap": EngineConfig(max_total_tokens=ROOM),
    "normal": EngineConfig(max_total_tokens=ROOM, disable_overlap_schedule=True),
    "paged": EngineConfig(max_total_tokens=ROOM, page_size=4),
    "mixed": EngineConfig(max_total_tokens=ROOM, enable_mixed_chunk=True),
    "noradix": EngineConfig(max_total_tokens=ROOM, disable_radix_cache=True),
}

# Around the end of each chunk, and with pages of four tokens around the end of a page.
BOUNDARIES = [(chunks, offset) for chunks in (1, 2, 3) for offset in (-1, 0, 1)]
PAGE_BOUNDARIES = [(2, offset) for offset in (-5, -4, -3, -1, 0, 1, 3, 4, 5)]


def play(sr_engine, name, config, *args):
    outcome = sr_engine.execute(f"{HERE}:{name}", config=CONFIGS[config], args=args)
    assert outcome.ok, outcome.report()


@pytest.mark.parametrize("name", ["smoke", "one_new_token", "one_chunks_after_the_other", "same_prompt_while_chunking"])
@pytest.mark.parametrize("config", CONFIGS)
def test_chunked_prefill(sr_engine, name, config):
    play(sr_engine, name, config)


@pytest.mark.parametrize("config", ["overlap", "normal", "paged", "mixed"])
def test_a_cached_prefix_is_not_prefilled_again(sr_engine, config):
    play(sr_engine, "radix_hit_while_chunking", config)


@pytest.mark.parametrize("chunks, offset", BOUNDARIES)
@pytest.mark.parametrize("config", ["overlap", "normal"])
def test_prompt_lengths_around_chunk_boundaries(sr_engine, config, chunks, offset):
    play(sr_engine, "length_at_boundary", config, chunks, offset)


@pytest.mark.parametrize("chunks, offset", PAGE_BOUNDARIES)
def test_prompt_lengths_around_page_boundaries(sr_engine, chunks, offset):
    play(sr_engine, "length_at_boundary", "paged", chunks, offset)


@pytest.mark.parametrize("name", ["pause_retract_at", "pause_in_place_at", "abort_all_at"])
@pytest.mark.parametrize("stage", LIFECYCLE_STAGES)
@pytest.mark.parametrize("config", CONFIGS)
def test_pause_and_abort_at_each_stage(sr_engine, name, stage, config):
    play(sr_engine, name, config, stage)


@pytest.mark.parametrize("victim", ["decoding", "chunking"])
@pytest.mark.parametrize("config", CONFIGS)
def test_an_abort_takes_only_its_own_request(sr_engine, victim, config):
    play(sr_engine, "abort_one_beside_a_chunking_one", config, victim)


@pytest.mark.parametrize("chunks", [2, 4, 6, 8])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_several_long_prompts_at_once(sr_engine, chunks, count):
    play(sr_engine, "chunk_sweep", "overlap", chunks, count)
