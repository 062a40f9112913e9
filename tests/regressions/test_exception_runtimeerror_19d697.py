"""exception: RuntimeError, after step 1.

SGLang raised RuntimeError: dictionary changed size during iteration

Found on SGLang 0.5.23; shown by 5 of 5 fresh runs.

Script:
    [default] open_session(s0); r0 = start_req(0:1, new=1, session=s0);
    r1 = start_req(0:1, new=1, session=s0(replace))

Last steps:
          | open_session(s0)
          | r0 = start_req(0:1, new=1, session=s0)
          | r1 = start_req(0:1, new=1, session=s0(replace))
          | epilogue: release, continue, drain
       1  -                             free   0p  0r

In SGLang, innermost first:
    session/session_controller.py:create_req: for _, req_node in self.req_nodes.items():
    managers/scheduler.py:_handle_generate_request: req = session.create_req(
    managers/scheduler.py:handle_generate_request: self._handle_generate_request(
    utils.py:__call__: return fn(obj)
"""

import pytest

from sr_fuzz.script import EngineConfig, OpenSession, Prompt, Script, SessionParams, StartReq

SIGNATURE = "exception:RuntimeError:radix+overlap:723106"

MENDED_BY = "sr_fuzz.faults.fixes.sessions:replaced_all"

SCRIPT = Script(
    config=EngineConfig(),
    actions=(
        OpenSession("s0"),
        StartReq("r0", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0")),
        StartReq("r1", prompt=Prompt(length=1), max_new_tokens=1, session=SessionParams("s0", replace=True)),
    ),
)


@pytest.mark.xfail(
    strict=True,
    reason="a request that replaces all of a plain session: Session.create_req goes over req_nodes "
    "while SessionReqNode.clear deletes from it (session/session_controller.py:245-246, 62); "
    "the scheduler dies of a RuntimeError",
)
def test_exception_runtimeerror_19d697(sr_engine):
    outcome = sr_engine.run(SCRIPT)
    assert outcome.ok, outcome.report()
