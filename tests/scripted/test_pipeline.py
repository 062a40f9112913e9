"""Chunked prefill over two pipeline stages, with one more batch in flight than there are stages."""

from __future__ import annotations

import pytest

from sr_fuzz.testing.scripted_runtime import SMALL_MODEL, ScriptedHttpServer, base_engine_kwargs
from tests.scripted import chunked, core


@pytest.fixture(scope="module")
def server():
    kwargs = base_engine_kwargs(pp_size=2, pp_async_batch_depth=1, chunked_prefill_size=64, max_total_tokens=4096)
    if kwargs["model_path"] == SMALL_MODEL:
        pytest.skip("there is a GPU here, and SGLang's tests run a real model on it: the outputs are the oracle's")
    with ScriptedHttpServer.start(**kwargs) as server:
        yield server


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_several_long_prompts_at_once(server, chunks, count):
    server.execute_script(chunked.chunk_sweep, args=(chunks, count))


def test_the_oracle_never_ends_a_request_where_sglangs_tests_count_on_a_real_model(server):
    server.execute_script(core.eos_is_no_end)
