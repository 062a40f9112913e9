"""liveness: stuck_waiting.

no forward in 60 turns although r0 (waiting) waits for an answer; 96 of 96 pages and 6 rows are free

Found on SGLang 0.5.23; this is the shape of what was found, written by hand: the window's pool has 72 tokens.
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "liveness:stuck_waiting:radix+overlap+swa"

SCRIPT = Script(
    config=EngineConfig(model="swa", swa_full_tokens_ratio=0.75, max_total_tokens=96, chunked_prefill_size=-1),
    actions=(StartReq("r0", prompt=Prompt(length=72), max_new_tokens=4),),
)


@pytest.mark.xfail(
    strict=True,
    reason="the door compares a prompt with the full pool alone; without chunks admission waits for a window pool "
    "that is too small for good (mem_cache/prefill_budget.py:257-268), see docs/findings/window-pool-never-admitted.md",
)
def test_liveness_stuck_waiting_5b2ee8(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
