"""Two ranks over gloo: the first rank drives, the other follows (tensor, pipeline) or runs freely (data)."""

from __future__ import annotations

import pytest

from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.script import Abort, EngineConfig, FlushCache, Prompt, Script, StartReq, Step, StepUntil

ACTIONS = (
    StartReq("r0", Prompt(0, 40), 8),
    StartReq("r1", Prompt(0, 60, 9), 8),
    StepUntil("r1", "first_decode"),
    StartReq("r2", Prompt(1, 20), 30, ignore_eos=True),
    Step(4),
    Abort("r2"),
    FlushCache(),
)


@pytest.mark.parametrize("ranks", [{"tp_size": 2}, {"dp_size": 2}], ids=["tensor", "data"])
def test_two_ranks_go_as_one(sr_engine, ranks):
    """The batches, pages and tokens are the same in the same steps, with every invariant on."""
    config = EngineConfig(max_total_tokens=256)
    one = sr_engine.run(Script(config, ACTIONS))
    with ServerEngine(device="cpu") as engine:
        two = engine.run(Script(EngineConfig(max_total_tokens=256, **ranks), ACTIONS))
    assert two.ok, two.report()
    assert two.trace == one.trace
