"""oracle_output: stop_passed_over, after step 3.

r0: output token 1 (45) is a stop token, but 4 tokens came out

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [speculative_algorithm=NGRAM] r0 = start_req(0:9, new=7, stop_token_ids=(40, 45)); step(2); abort(r0)

Last steps:
          | r0 = start_req(0:9, new=7, stop_token_ids=(40, 45))
          | step(2)
       1  extend[r0]                    free 119p  5r
       2  decode[r0]                    free 111p  5r  -> r0 +1
          | abort(r0)
          | epilogue: release, continue, drain
       3  decode[r0]                    free 116p  6r  -> r0 +3 finish:abort
"""

import pytest

from sr_fuzz.script import Abort, EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "oracle_output:stop_passed_over:radix+overlap+ngram"
# In either loop, with pages and without a tree.
ALSO_SEEN_AS = ("oracle_output:stop_passed_over:*+ngram",)

MENDED_BY = "sr_fuzz.faults.fixes.speculation:stop_before_abort"

SCRIPT = Script(
    config=EngineConfig(speculative_algorithm="NGRAM"),
    actions=(
        StartReq("r0", prompt=Prompt(length=9), max_new_tokens=7, stop_token_ids=(40, 45)),
        Step(2),
        Abort("r0"),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="update_finish_state ends an aborted request before it looks for a stop in the tokens of "
    "the step (managers/schedule_batch.py:2011-2014); with speculation these are several, and"
    " all of them go out",
)
def test_oracle_output_stop_passed_over_ce8bfa(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
