"""oracle_output: prompt_changed, after step 2.

r0: the prompt it runs is not the one that was sent

Found on SGLang 0.5.18; shown by 5 of 5 fresh runs.
Minimised from 43 actions to 1 in 13 runs.

Script:
    [max_total_tokens=96 disaggregation_mode=prefill] r0 = start_req(0:93, new=1)

Last steps:
          | r0 = start_req(0:93, new=1)
          | epilogue: release, continue, drain
       1  extend[r0]                    free  95p  5r
       2  -                             free  95p  6r  -> r0 +1 finish:length
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "oracle_output:prompt_changed:radix+overlap+prefill"

MENDED_BY = "sr_fuzz.faults.fixes.disaggregation:refused_before_bootstrap"

SCRIPT = Script(
    config=EngineConfig(max_total_tokens=96, disaggregation_mode="prefill"),
    actions=(
        StartReq("r0", prompt=Prompt(length=93), max_new_tokens=1),
    ),
)


@pytest.mark.sglang_bug(
    "<0.5.20",
    reason="a prefill half bootstraps a prompt that was refused at the door and ends it by length, "
    "whatever to_finish says (0.5.18: disaggregation/prefill.py:884-885); 0.5.20 answers it "
    "at once",
)
def test_oracle_output_prompt_changed_20f941(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
