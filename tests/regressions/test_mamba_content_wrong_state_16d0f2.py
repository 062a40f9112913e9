"""mamba_content: wrong_state, when r0 stops.

slot 4 of tree node 18 holds a state after 24 tokens, expected 16

Found on SGLang 0.5.23 with a script of 27 actions; this is its shape, written by hand: r1's prefill runs between r0's
decode steps 15 and 16, and r0 stops while step 24 is in flight.
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "mamba_content:wrong_state:radix+overlap+mamba"

SCRIPT = Script(
    config=EngineConfig(
        model="mamba", max_mamba_cache_size=24, mamba_radix_cache_strategy="extra_buffer", mamba_track_interval=8
    ),
    actions=(
        StartReq("r0", prompt=Prompt(family=4, length=1), max_new_tokens=30, stop_token_ids=(42,)),
        Step(15),
        StartReq("r1", prompt=Prompt(family=1, length=4), max_new_tokens=2),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="which of a request's two slots is written next changes never or twice when a prefill runs beside a "
    "boundary: batch_result_processor.py:1387-1419, see docs/findings/state-of-other-length.md",
)
def test_mamba_content_wrong_state_16d0f2(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
