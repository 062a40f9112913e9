"""With each fix, the script of its bug breaks nothing: this confirms the cause that the bug's file gives."""

from __future__ import annotations

import pytest

from sr_fuzz.bugs.catalogue import shipped
from sr_fuzz.faults import as_fault
from sr_fuzz.script import Action, Continue, EngineConfig, Pause, Prompt, Script, StartReq, Step, StepUntil

FIXED = {path.stem: bug for path, bug in shipped().items() if bug.fixes}
LOCAL = [name for name, bug in FIXED.items() if bug.engine == "local"]
SERVER = [name for name, bug in FIXED.items() if bug.engine == "server"]


def freed(*actions: Action) -> Script:
    return Script(EngineConfig(), (*actions, Pause("in_place"), Pause("abort"), Continue()))


# What other requests may still generate is reserved as a fraction of it: here half a token is left, and counts as none.
HALF_A_TOKEN = Script(
    EngineConfig(max_total_tokens=96, enable_mixed_chunk=True, schedule_conservativeness=0.03),
    (
        *(StartReq("r0", Prompt(3, 9), 9), Step(2), StartReq("r1", Prompt(0, 9), 9), Step(2)),
        *(StartReq("r2", Prompt(3, 9), 9), Step(2), StartReq("r3", Prompt(0, 9, 1), 9, stream=False), Step(2)),
        StartReq("r4", Prompt(0, 1), 48, stream=False),
        StartReq("r5", Prompt(1, 2), 48),
        StartReq("r6", Prompt(2, 3), 48),
        StartReq("r7", Prompt(3, 4), 48, stream=False),
        StartReq("r8", Prompt(3, 66, 33), 4),
    ),
)

# The same bug in other situations: in the overlap loop a request that was just prefilled is in the last batch alone,
# and one between two chunks in the chunked slot.
MORE = {
    "http_answers_control_stuck_1b7970": (
        freed(StartReq("r0", Prompt(0, 40), 20, ignore_eos=True), Step(1)),
        freed(StartReq("r0", Prompt(0, 17), 6, ignore_eos=True), StepUntil("r0", "nth_chunk", nth=2)),
    ),
    "exception_runtimeerror_746b90": (HALF_A_TOKEN,),
}


def test_there_are_fixes():
    assert set(FIXED) == {path.stem for path in shipped()}, "each known bug has a fix, which verifies its hits"
    for fix in {fix for bug in FIXED.values() for fix in bug.fixes}:
        assert as_fault(fix).name == fix.rpartition(":")[2]


@pytest.mark.parametrize("name", LOCAL)
def test_the_bug_is_gone(sr_engine, name):
    gone(sr_engine, name)


@pytest.mark.parametrize("name", SERVER)
def test_the_bug_is_gone_on_the_server(sr_server_engine, name):
    gone(sr_server_engine, name)


def gone(engine, name):
    bug = FIXED[name]
    if not bug.is_open_in(engine.sglang_version):
        pytest.skip(f"SGLang {engine.sglang_version} does not have this bug; --sr-sglang VERSION takes another one")
    with engine.with_faults(*bug.fixes) as engine:
        for script in (bug.script, *MORE.get(name, ())):
            outcome = engine.run(script)
            assert outcome.ok, outcome.report()
            for fix in bug.fixes:
                _, acted = outcome.faults[as_fault(fix).name]
                assert acted > 0, f"it was gone without {fix}"
