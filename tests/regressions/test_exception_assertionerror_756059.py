"""exception: AssertionError, after step 4.

SGLang raised AssertionError: (no message)

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [chunked_prefill_size=8 disable_radix_cache=True enable_streaming_session=True] open_session(s0, streaming=True);
    r0 = start_req(0:1, new=1, session=s0); step(3); r1 = start_req(0:8, new=1, ignore_eos, session=s0)

Last steps:
          | open_session(s0, streaming=True)
          | r0 = start_req(0:1, new=1, session=s0)
          | step(3)
       1  extend[r0]                    free 127p  5r
       2  -                             free 127p  5r  -> r0 +1 finish:length
       3  -                             free 127p  5r
          | r1 = start_req(0:8, new=1, ignore_eos, session=s0)
          | epilogue: release, continue, drain
       4  -                             free   0p  0r

In SGLang, innermost first:
    managers/schedule_policy.py:add_one_req_ignore_eos: assert req.prefix_len == 0
    managers/schedule_policy.py:add_one_req: return self.add_one_req_ignore_eos(req)
    managers/scheduler.py:_get_new_batch_prefill_raw: res = adder.add_one_req(
    managers/scheduler.py:get_new_batch_prefill: ret, running_batch = self._get_new_batch_prefill_raw(
"""

import pytest

from sr_fuzz.script import EngineConfig, OpenSession, Prompt, Script, SessionParams, StartReq, Step

SIGNATURE = "exception:AssertionError:no-radix+overlap+sessions:4be50c"

# The assertion reads another attribute in 0.5.20.
ALSO_SEEN_AS = ("exception:AssertionError:no-radix+overlap+sessions:95822f",)

MENDED_BY = "sr_fuzz.faults.fixes.sessions:eos_with_history"

SCRIPT = Script(
    config=EngineConfig(chunked_prefill_size=8, disable_radix_cache=True, enable_streaming_session=True),
    actions=(
        OpenSession("s0", streaming=True),
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
        Step(3),
        StartReq("r1", max_new_tokens=1, ignore_eos=True, session=SessionParams("s0")),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="without the prefix cache add_one_req_ignore_eos asserts that a request has no prefix "
    "(managers/schedule_policy.py:1368), but a later turn of a streaming session has its "
    "history; the scheduler dies",
)
def test_exception_assertionerror_756059(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
