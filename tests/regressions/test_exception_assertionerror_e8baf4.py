"""exception: AssertionError, after step 3.

SGLang raised AssertionError: (no message)

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 25 actions to 4 in 31 runs.

Script:
    [page_size=4 enable_mixed_chunk=True disable_radix_cache=True] r0 = start_req(0:8, new=2);
    r1 = start_req(0:9, new=4); r2 = start_req(0:15, new=8, return_logprob, logprob_start_len=7);
    r3 = start_req(0:15, new=6, ignore_eos)

Last steps:
          | r0 = start_req(0:8, new=2)
          | r1 = start_req(0:9, new=4)
          | r2 = start_req(0:15, new=8, return_logprob, logprob_start_len=7)
          | r3 = start_req(0:15, new=6, ignore_eos)
          | epilogue: release, continue, drain
       1  extend[r0 r1]                 free  28p  4r  wait r2 r3  chunk r1
       2  extend[r1 r2 r3]              free  24p  2r  chunk r3  -> r0 +1
       3  extend[r3]                    free   0p  0r

In SGLang, innermost first:
    managers/scheduler_components/logprob_result_processor.py:add_input_logprob_return_values: assert len(req.logprob...
    managers/scheduler_components/logprob_result_processor.py:add_logprob_return_values: self.add_input_logprob_retur...
    managers/scheduler_components/batch_result_processor.py:_apply_prefill_logprobs: self.logprob_result_processor.ad...
    managers/scheduler_components/batch_result_processor.py:process_batch_result_prefill: logprob_pt = self._apply_pr...
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "exception:AssertionError:no-radix+overlap+paged:ff9265"

MENDED_BY = "sr_fuzz.faults.fixes.admission:one_chunked_request"

SCRIPT = Script(
    config=EngineConfig(page_size=4, enable_mixed_chunk=True, disable_radix_cache=True),
    actions=(
        StartReq("r0", max_new_tokens=2),
        StartReq("r1", prompt=Prompt(length=9), max_new_tokens=4),
        StartReq("r2", prompt=Prompt(length=15), return_logprob=True, logprob_start_len=7),
        StartReq("r3", prompt=Prompt(length=15), max_new_tokens=6, ignore_eos=True),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="two chunked requests in a batch, schedule_policy.py:1357 and 1663: docs/findings/two-chunked-requests.md",
)
def test_exception_assertionerror_e8baf4(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
