"""streams: finished_twice, after step 2.

r0 was finished 2 times (step 2: AbortReq and step 2: abort)

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [is_embedding=True] r0 = start_req(0:30, new=1); step(1); abort(r0)

Last steps:
          | r0 = start_req(0:30, new=1)
          | step(1)
       1  extend[r0]                    free 112p  5r  chunk r0
          | abort(r0)
          | epilogue: release, continue, drain
       2  -                             free 128p  6r  -> r0 abort, r0 +0 finish:abort
"""

import pytest

from sr_fuzz.script import Abort, EngineConfig, Prompt, Script, StartReq, Step

SIGNATURE = "streams:finished_twice:radix+overlap+embedding"

ALSO_SEEN_AS = (
    "streams:finished_twice:radix+overlap+paged+embedding",
)

MENDED_BY = "sr_fuzz.faults.fixes.output:embedding_once"

SCRIPT = Script(
    config=EngineConfig(is_embedding=True),
    actions=(
        StartReq("r0", prompt=Prompt(length=30), max_new_tokens=1),
        Step(),
        Abort("r0"),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="a chunked embedding request that is aborted under overlap is answered by "
    "process_pending_chunked_abort (managers/scheduler.py:3807-3827), and once more when the "
    "result of its last chunk is processed: _stream_output_embedding sends whatever has "
    "finished, without looking whether it was sent "
    "(managers/scheduler_components/output_streamer.py:277-284)",
)
def test_streams_finished_twice_34b967(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
