"""Test cases that own a server, and the arguments they start it with; the server is a mock that records its calls."""

from __future__ import annotations

import json
import unittest

import pytest

import sr_fuzz.engine.live.server
from sr_fuzz.oracle.function import MAX_LEN, token_of
from sr_fuzz.oracle.settings import MODEL_PATH
from sr_fuzz.testing.scripted_runtime import DEFAULT_CHUNK_SIZE, SMALL_MODEL, ScriptedTestCase, base_engine_kwargs


class RecordingServer:
    """A mock of ``ScriptedHttpServer``."""

    log: list[tuple] = []

    @classmethod
    def start(cls, **engine_kwargs):
        cls.log.append(("start", engine_kwargs))
        return cls()

    def execute_script(self, script_fn, *, args=(), timeout_s=None):
        self.log.append(("execute", script_fn.__name__, args))

    def shutdown(self):
        self.log.append(("shutdown",))


@pytest.fixture
def log(monkeypatch):
    monkeypatch.setattr(sr_fuzz.engine.live.server, "ScriptedHttpServer", RecordingServer)
    monkeypatch.setattr(RecordingServer, "log", [])
    return RecordingServer.log


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_the_tests_of_a_class_share_one_server(log):
    class TestTwo(ScriptedTestCase):
        ENGINE_KWARGS = {"page_size": 4}

        def test_a(self):
            self.server.execute_script(self._script, args=(1,))

        def test_b(self):
            self.server.execute_script(self._script, args=(2,))

        @staticmethod
        def _script(t, number):
            yield

    assert run(TestTwo).wasSuccessful()
    assert log[:3] == [("start", {"page_size": 4}), ("execute", "_script", (1,)), ("execute", "_script", (2,))]
    assert set(log[3:]) == {("shutdown",)}


def test_a_class_without_engine_kwargs_is_told_to_set_them(log):
    class TestNothing(ScriptedTestCase):
        def test_a(self):
            pass

    ((_, text),) = run(TestNothing).errors
    assert "AssertionError: TestNothing.ENGINE_KWARGS is empty: set it to the arguments of the server" in text
    assert log == []


def test_the_server_ends_when_the_set_up_of_a_subclass_fails(log):
    class TestBroken(ScriptedTestCase):
        ENGINE_KWARGS = {"page_size": 4}

        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            raise RuntimeError("after the start")

        def test_a(self):
            pass

    assert len(run(TestBroken).errors) == 1
    assert log == [("start", {"page_size": 4}), ("shutdown",)]


def test_a_failing_test_is_not_run_again(log):
    class TestFails(ScriptedTestCase):
        ENGINE_KWARGS = {"page_size": 4}

        def test_a(self):
            self.server.execute_script(self.test_a)
            raise AssertionError("once is enough")

    assert len(run(TestFails).failures) == 1
    assert [entry[0] for entry in log].count("execute") == 1


# -- base_engine_kwargs ----------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["no-gpu", "gpu"])
def gpu(monkeypatch, request):
    monkeypatch.setattr("torch.cuda.is_available", lambda: request.param)
    return request.param


@pytest.mark.parametrize("named", [{}, {"model_path": SMALL_MODEL}])
def test_without_a_gpu_the_oracle_model_stands_for_the_small_one(gpu, named):
    kwargs = base_engine_kwargs(**named)
    assert kwargs["chunked_prefill_size"] == DEFAULT_CHUNK_SIZE
    assert kwargs["model_path"] == (SMALL_MODEL if gpu else str(MODEL_PATH))


def test_another_model_stays_as_it_is(gpu):
    assert base_engine_kwargs(model_path="openai/gpt-oss-20b", chunked_prefill_size=64, page_size=1) == {
        "model_path": "openai/gpt-oss-20b", "chunked_prefill_size": 64, "page_size": 1,
    }  # fmt: skip


def test_the_oracle_then_never_ends_a_request_by_itself(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides = json.loads(base_engine_kwargs()["json_model_override_args"])
    assert overrides["eos_token_id"] not in {token_of(digest) for digest in range(64 * 64)}
    assert overrides["max_position_embeddings"] == MAX_LEN


def test_each_pipeline_stage_gets_a_layer(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    kwargs = base_engine_kwargs(pp_size=4)
    assert kwargs["pp_size"] == json.loads(kwargs["json_model_override_args"])["num_hidden_layers"] == 4


def test_overrides_win(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert base_engine_kwargs(json_model_override_args="{}", max_total_tokens=64) == {
        "model_path": str(MODEL_PATH),
        "chunked_prefill_size": DEFAULT_CHUNK_SIZE,
        "json_model_override_args": "{}",
        "max_total_tokens": 64,
    }
