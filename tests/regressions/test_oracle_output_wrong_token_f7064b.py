"""oracle_output: wrong_token, after step 5.

r3: output token 0 is 44, the oracle says 43 (prompt of 32 tokens, retracted 0 times)

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.
Minimised from 45 actions to 5 in 31 runs.

Script:
    [page_size=4 max_total_tokens=96 enable_mixed_chunk=True disable_radix_cache=True] r0 = start_req(0:8, new=1);
    r1 = start_req(0:33, new=2); r2 = start_req(0:94, new=12); r3 = start_req(0:32, new=1);
    r4 = start_req(0:24, new=0, ignore_eos)

Last steps:
          | r0 = start_req(0:8, new=1)
          | r1 = start_req(0:33, new=2)
          | r2 = start_req(0:94, new=12)
          | r3 = start_req(0:32, new=1)
          | r4 = start_req(0:24, new=0, ignore_eos)
          | epilogue: release, continue, drain
       1  extend[r0 r1]                 free  20p  4r  wait r2 r3 r4  chunk r1
       2  extend[r1]                    free  18p  5r  wait r2 r3 r4  chunk r1  -> r0 +1 finish:length
       3  extend[r1 r2]                 free  14p  4r  wait r3 r4
       4  mixed[r3 r4 r1]               free  11p  3r  chunk r4  -> r1 +1, r2 +1 finish:abort
       5  extend[r4]                    free  20p  5r  chunk r4  -> r3 +1 finish:length, r1 +1 finish:length
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "oracle_output:wrong_token:no-radix+overlap+paged"

MENDED_BY = "sr_fuzz.faults.fixes.admission:one_chunked_request"

SCRIPT = Script(
    config=EngineConfig(page_size=4, max_total_tokens=96, enable_mixed_chunk=True, disable_radix_cache=True),
    actions=(
        StartReq("r0", max_new_tokens=1),
        StartReq("r1", prompt=Prompt(length=33), max_new_tokens=2),
        StartReq("r2", prompt=Prompt(length=94), max_new_tokens=12),
        StartReq("r3", prompt=Prompt(length=32), max_new_tokens=1),
        StartReq("r4", prompt=Prompt(length=24), max_new_tokens=0, ignore_eos=True),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="two chunked requests in a batch, schedule_policy.py:1357 and 1663: docs/findings/two-chunked-requests.md",
)
def test_oracle_output_wrong_token_f7064b(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
