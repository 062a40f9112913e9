"""kv_pages: leaked, when r0 is retracted.

pages 22, 23, 26, 27, 30, 31, 34, 35 are neither free nor in the tree nor owned by a request (8 of 96)

Found on SGLang 0.5.18; this is the shape of what was found, written by hand.
"""

import pytest

from sr_fuzz.script import EngineConfig, Pause, Prompt, Script, StartReq, Step

SIGNATURE = "kv_pages:leaked:radix+overlap+pure_swa"

SCRIPT = Script(
    config=EngineConfig(model="pure_swa"),
    actions=(
        StartReq("r0", prompt=Prompt(length=4), max_new_tokens=20, ignore_eos=True),
        Step(4),
        Pause("retract"),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.20",
    reason="a retraction without anything out of the window frees the prompt alone (pure_swa_radix_cache.py:133), see "
    "docs/findings/pure-window-leaks-on-retraction.md",
)
def test_kv_pages_leaked_90d5e3(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
