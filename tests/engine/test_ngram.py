"""Speculation with n-grams on a CPU: drafts come and go, and all answers are the same as without speculation."""

from __future__ import annotations

import msgspec
import pytest
from sr_fuzz.strategies.configs import CONFIG_SETS

from sr_fuzz.engine.live.server import ServerEngine
from sr_fuzz.script import Continue, Pause, Prompt, Script, StartReq, Step, StepUntil
from sr_fuzz.script.errors import EngineError

NGRAM = CONFIG_SETS["ngram"]

ACTIONS = (
    StartReq("r0", Prompt(0, 20), 24, ignore_eos=True),
    StartReq("r1", Prompt(0, 20, 4), 12, return_logprob=True, top_logprobs_num=2),
    StartReq("r2", Prompt(1, 9), 16, stop_token_ids=(40, 45)),
    StepUntil("r0", "mid_decode"),
    Pause("retract"),
    Continue(),
    Step(4),
    StartReq("r3", Prompt(after="r0", length=28), 8),
    Step(8),
)


def play(engine, config, *actions):
    outcome = engine.run(Script(config, actions))
    assert outcome.ok, outcome.report()
    return outcome


@pytest.mark.parametrize("name", NGRAM)
def test_answers_are_those_without_speculation(sr_engine, name):
    speculating = play(sr_engine, NGRAM[name], *ACTIONS)
    plain = play(sr_engine, msgspec.structs.replace(NGRAM[name], speculative_algorithm=None), *ACTIONS)
    assert speculating.outputs == plain.outputs and len(speculating.outputs) == 4
    assert speculating.forwards < plain.forwards


@pytest.mark.parametrize("name", NGRAM)
def test_drafts_are_accepted_and_rejected(sr_engine, name):
    reach = play(sr_engine, NGRAM[name], *ACTIONS).reach
    assert reach["draft.none"] and reach["draft.some"]
    assert reach["draft.accepted"] >= reach["draft.some"] and reach["max.drafts"] >= 2


def test_without_speculation_no_drafts_are_counted(sr_engine):
    plain = msgspec.structs.replace(NGRAM["ngram-chunk16"], speculative_algorithm=None)
    assert not [kind for kind in play(sr_engine, plain, *ACTIONS).reach if "draft" in kind]


def test_overlap_stays_on(sr_engine):
    """Under overlap the first token is sent one step later, when the next batch has already been launched."""
    start = StartReq("r0", Prompt(0, 8), 8, ignore_eos=True)
    first = {
        name: next(r.step for r in play(sr_engine, NGRAM[name], start).trace if r.sent)
        for name in ("ngram-chunk16", "ngram-normal-chunk8")
    }
    assert first == {"ngram-chunk16": 2, "ngram-normal-chunk8": 1}


def test_copies_that_are_sent_in_the_last_step_are_waited_for(sr_engine):
    outcome = play(sr_engine, NGRAM["ngram-chunk16"], StartReq("r0", Prompt(length=1), 1, n=3))
    assert {f"r0.c{index}" for index in range(3)} <= outcome.outputs.keys()


def test_a_server_on_a_cpu_refuses_in_one_line():
    engine = ServerEngine(device="cpu")
    try:
        with pytest.raises(EngineError) as error:
            engine.run(Script(NGRAM["ngram-chunk16"], (Step(1),)))
        assert str(error.value).startswith("speculative_algorithm=NGRAM on a CPU: the server engine cannot")
        assert "\n" not in str(error.value)
    finally:
        engine.close()
