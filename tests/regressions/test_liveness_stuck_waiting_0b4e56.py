"""liveness: stuck_waiting, after step 60.

no forward in 60 turns although r0 (waiting) waits for an answer; 96 of 96 pages and 6 rows are free

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [max_total_tokens=96 disable_radix_cache=True] r0 = start_req(0:1, new=94, ignore_eos)

Last steps:
      53  -                             free  96p  6r  wait r0
      54  -                             free  96p  6r  wait r0
      55  -                             free  96p  6r  wait r0
      56  -                             free  96p  6r  wait r0
      57  -                             free  96p  6r  wait r0
      58  -                             free  96p  6r  wait r0
      59  -                             free  96p  6r  wait r0
      60  -                             free  96p  6r  wait r0
"""

import pytest

from sr_fuzz.script import EngineConfig, Prompt, Script, StartReq

SIGNATURE = "liveness:stuck_waiting:no-radix+overlap"

# With pages admission reserves more, the bound on the output does not. Neither a pool of states nor drafts make a
# difference.
ALSO_SEEN_AS = (
    "liveness:stuck_waiting:no-radix+overlap+paged",
    "liveness:stuck_waiting:no-radix+normal+paged",
    "liveness:stuck_waiting:no-radix+overlap+mamba",
    "liveness:stuck_waiting:no-radix+overlap+ngram",
)

MENDED_BY = "sr_fuzz.faults.fixes.admission:output_that_fits"

SCRIPT = Script(
    config=EngineConfig(max_total_tokens=96, disable_radix_cache=True),
    actions=(
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=94, ignore_eos=True),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="add_one_req_ignore_eos (managers/schedule_policy.py:1302) asks for one token more than "
    "init_req_max_new_tokens (managers/scheduler.py:2709) leaves: a request clipped to the "
    "pool is accepted, then refused admission for ever, and so is everybody behind it",
)
def test_liveness_stuck_waiting_0b4e56(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
