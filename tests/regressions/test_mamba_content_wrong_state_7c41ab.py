"""mamba_content: wrong_state, when r1 has been prefilled.

slot 18 of tree node 19 holds a state after 0 tokens, expected 8

Found on SGLang 0.5.22; this is the shape of what was found, written by hand: r1's prefill is mixed with r0's decode.
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "mamba_content:wrong_state:radix+overlap+mamba"

SCRIPT = Script(
    config=EngineConfig(
        model="mamba",
        max_mamba_cache_size=24,
        mamba_radix_cache_strategy="extra_buffer",
        mamba_track_interval=8,
        enable_mixed_chunk=True,
    ),
    actions=(
        StartReq("r0", prompt=Prompt(family=4, length=4), max_new_tokens=20, ignore_eos=True),
        Step(4),
        StartReq("r1", prompt=Prompt(family=1, length=12), max_new_tokens=4),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.23",
    reason="merge_batch drops which states a mixed prefill is to keep (0.5.22: managers/schedule_batch.py:3747), see "
    "docs/findings/state-not-kept-in-mixed-batch.md",
)
def test_mamba_content_wrong_state_7c41ab(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
