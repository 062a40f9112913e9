"""A chunked request that is parked on a sliding-window model is not freed twice."""

from __future__ import annotations

import pytest
from sr_fuzz.invariants import NAMES

from sr_fuzz.script import EngineConfig
from sr_fuzz.testing.scripted_runtime import ScriptedTestCase
from tests.scripted.sliding_window import CHUNK, ENGINE_KWARGS, POOL, parked_chunked_request

HERE = "tests.scripted.sliding_window"

# The view reads one KV pool, and this engine has two.
INVARIANTS = [name for name in NAMES if name != "kv_pages"]


@pytest.fixture(scope="module")
def engine(sr_engine):
    with sr_engine.with_faults(f"{HERE}:local_engine") as engine:
        yield engine


def test_a_parked_chunked_request_is_not_freed_twice(engine):
    config = EngineConfig(max_total_tokens=POOL, chunked_prefill_size=CHUNK)
    outcome = engine.execute(f"{HERE}:parked_chunked_request", config=config, invariants=INVARIANTS)
    assert outcome.ok, outcome.report()


class TestOnServer(ScriptedTestCase):
    """Over HTTP, in a test case written like those of SGLang."""

    ENGINE_KWARGS = ENGINE_KWARGS

    def test_a_parked_chunked_request_is_not_freed_twice(self):
        self.server.execute_script(parked_chunked_request, invariants=INVARIANTS)
