"""The core API of the scripted runtime, on the local engine with all invariants on."""

from __future__ import annotations

import pytest

from sr_fuzz.script import EngineConfig
from sr_fuzz.script.errors import EngineError

HERE = "tests.scripted.core"

# Room for the longest prompts here, so that no resource runs short.
CONFIG = EngineConfig(max_total_tokens=1024)

EXHAUST_KV = pytest.param(
    "exhaust_kv",
    marks=pytest.mark.sglang_bug("<0.5.22", reason="admission stays shut: docs/findings/admission-stays-shut.md"),
)

FUNCTIONS = [
    "automatic_rids",
    "explicit_rid",
    "unknown_rid",
    "from_start_to_finish",
    "waiting_for_a_row",
    "finished_without_being_watched",
    "finish_states",
    "request_fields",
    "one_step_a_yield",
    "chunking",
    "batch_composition",
    "abort_all",
    "late_abort",
    "continue_with_an_empty_torch_cache",
    "pause_twice_continue_once",
    "warm_prefix",
    "flush_empties_the_tree",
    "full_eviction_only",
    EXHAUST_KV,
    "exhaust_lock_refs",
    "nothing",
]

# Scripts that fail, and what their caller gets.
RAISED = [
    ("wrong_assertion", "AssertionError: boom"),
    ("runtime_error", "RuntimeError: simulated"),
    ("bound_reached", "the predicate did not hold within 5 steps"),
    ("not_a_generator", "TypeError: .*NoneType"),
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_core_api(sr_engine, name):
    outcome = sr_engine.execute(f"{HERE}:{name}", config=CONFIG)
    assert outcome.ok, outcome.report()


@pytest.mark.parametrize("name", ["from_start_to_finish", "finish_states", "chunking", "abort_all", EXHAUST_KV])
@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(max_total_tokens=1024, disable_overlap_schedule=True),
        EngineConfig(max_total_tokens=1024, page_size=4),
        EngineConfig(max_total_tokens=1024, disable_radix_cache=True),
    ],
    ids=["normal", "paged", "noradix"],
)
def test_core_api_on_other_configurations(sr_engine, name, config):
    outcome = sr_engine.execute(f"{HERE}:{name}", config=config)
    assert outcome.ok, outcome.report()


def test_ballast_takes_rows(sr_engine):
    # SGLang clips ballast to the context of 4096 tokens and reserves all of it; three ballast requests must fit.
    outcome = sr_engine.execute(f"{HERE}:exhaust_rows", config=EngineConfig(max_total_tokens=16384))
    assert outcome.ok, outcome.report()


@pytest.mark.parametrize("name, text", RAISED)
def test_what_a_script_function_raises_reaches_the_caller_with_its_traceback(sr_engine, name, text):
    with pytest.raises(AssertionError, match=text) as error:
        sr_engine.execute(f"{HERE}:{name}", config=CONFIG)
    assert f"script function {HERE}:{name} failed" in str(error.value)


def test_a_function_that_is_not_there_is_one_clear_line(sr_engine):
    with pytest.raises(EngineError) as error:
        sr_engine.execute(f"{HERE}:missing", config=CONFIG)
    assert "missing" in str(error.value).splitlines()[0]
