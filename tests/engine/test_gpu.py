"""The oracle model on a GPU: the same batches and outputs as on the CPU, and most of the device memory left free."""

from __future__ import annotations

import pytest

from sr_fuzz.engine.live.persistent import PersistentEngine
from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.engine.local.engine import LocalEngine
from sr_fuzz.script import Abort, Continue, EngineConfig, FlushCache, Pause, Prompt, Script, StartReq, Step

pytestmark = pytest.mark.gpu

CONFIG = EngineConfig()
PAGED = EngineConfig(page_size=4, max_total_tokens=64, schedule_conservativeness=0.03)
SYNCHRONOUS = EngineConfig(disable_overlap_schedule=True, enable_mixed_chunk=True)

CROWD = tuple(StartReq(f"r{i}", Prompt(i % 2, 10 + i, i % 3), 20) for i in range(6))

SCRIPTS = {
    "chunks and a shared prefix": Script(
        CONFIG, (StartReq("r0", Prompt(0, 40), 6), StartReq("r1", Prompt(0, 40, 9), 6), Step(8), FlushCache())
    ),
    "logprobs": Script(CONFIG, (StartReq("r0", Prompt(1, 20), 6, return_logprob=True, top_logprobs_num=2), Step(9))),
    "a pause and an abort": Script(CONFIG, (*CROWD[:3], Step(6), Pause(), Step(2), Continue(), Step(2), Abort("r1"))),
    "retractions with pages of 4": Script(PAGED, (*CROWD, Step(40))),
    "no overlap, mixed batches": Script(SYNCHRONOUS, (*CROWD[:4], Step(4), Pause("in_place"), Continue(), Step(9))),
}

# A CUDA context takes half of this; a pool of all the memory would take some dozens of gigabytes.
MAX_DEVICE_GB = 3.0


@pytest.fixture(scope="module")
def on_cpu():
    with LocalEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def persistent():
    with PersistentEngine(device="cuda") as engine:
        yield engine


@pytest.fixture(scope="module")
def server():
    with ServerEngine(device="cuda") as engine:
        yield engine


def batches(outcome):
    return [(record.mode, record.batch) for record in outcome.trace if record.mode]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scheduler_on_the_gpu_does_what_one_on_the_cpu_does(persistent, on_cpu, name):
    here, there = persistent.run(SCRIPTS[name]), on_cpu.run(SCRIPTS[name])
    assert here.ok, here.report()
    assert here.outputs == there.outputs and here.outputs
    assert batches(here) == batches(there)
    assert {"kv_content", "oracle_output"} <= here.checks.keys()


def test_a_server_on_the_gpu_gives_the_same_outputs(server, on_cpu):
    for name in ("chunks and a shared prefix", "logprobs", "a pause and an abort"):
        here, there = server.run(SCRIPTS[name]), on_cpu.run(SCRIPTS[name])
        assert here.ok, here.report()
        assert here.outputs == there.outputs and here.outputs


def test_a_scheduler_leaves_the_device_to_others():
    import torch

    before, _ = torch.cuda.mem_get_info()
    with PersistentEngine(device="cuda") as engine:
        assert engine.run(SCRIPTS["logprobs"]).ok
        after, _ = torch.cuda.mem_get_info()
    assert (before - after) / 1e9 < MAX_DEVICE_GB
