"""The same script functions over HTTP. All tests here share one server, whose start takes half a minute or more."""

from __future__ import annotations

from importlib import metadata

import pytest

from sr_fuzz.testing.scripted_runtime import LIFECYCLE_STAGES
from tests.scripted import chunked, core, same_answers
from tests.scripted.test_core import RAISED


@pytest.mark.parametrize(
    "function",
    [
        core.automatic_rids,
        core.explicit_rid,
        core.unknown_rid,
        core.from_start_to_finish,
        core.finished_without_being_watched,
        core.finish_states,
        core.request_fields,
        core.one_step_a_yield,
        core.chunking,
        core.batch_composition,
        core.abort_all,
        core.late_abort,
        core.continue_with_an_empty_torch_cache,
        core.pause_twice_continue_once,
        core.warm_prefix,
        core.flush_empties_the_tree,
        core.full_eviction_only,
        core.exhaust_kv,
        core.exhaust_lock_refs,
        core.exhaust_rows,
        core.nothing,
        chunked.smoke,
        chunked.one_new_token,
        chunked.one_chunks_after_the_other,
        chunked.radix_hit_while_chunking,
        chunked.same_prompt_while_chunking,
    ],
    ids=lambda function: function.__name__,
)
def test_script_function(sr_server, function):
    sr_server.execute_script(function)


@pytest.mark.parametrize("chunks, offset", [(1, 0), (1, 1), (2, -1), (2, 0), (2, 1)])
def test_prompt_lengths_around_chunk_boundaries(sr_server, chunks, offset):
    sr_server.execute_script(chunked.length_at_boundary, args=(chunks, offset))


@pytest.mark.parametrize("stage", LIFECYCLE_STAGES)
@pytest.mark.parametrize("function", [chunked.pause_retract_at, chunked.pause_in_place_at, chunked.abort_all_at])
def test_pause_and_abort_at_each_stage(sr_server, function, stage):
    sr_server.execute_script(function, args=(stage,))


@pytest.mark.parametrize("victim", ["decoding", "chunking"])
def test_an_abort_takes_only_its_own_request(sr_server, victim):
    sr_server.execute_script(chunked.abort_one_beside_a_chunking_one, args=(victim,))


@pytest.mark.skipif(metadata.version("sglang") != "0.5.23", reason="compares with the queries of SGLang 0.5.23")
def test_queries_answer_what_sglangs_own_answer(sr_server):
    sr_server.execute_script(same_answers.agrees_with_sglang)


@pytest.mark.parametrize("name, text", RAISED)
def test_what_a_script_function_raises_reaches_the_caller_and_the_next_one_runs(sr_server, name, text):
    with pytest.raises(AssertionError, match=text) as error:
        sr_server.execute_script(getattr(core, name))
    assert f"script function tests.scripted.core:{name} failed" in str(error.value)
    sr_server.execute_script(core.from_start_to_finish)
