"""Small scripts that once went wrong in this project, with what is right."""

from __future__ import annotations

from contextlib import closing

import pytest

from sr_fuzz.bugs.known import all_fixes, all_known, script_of
from sr_fuzz.campaign.known_hits import KnownHits
from sr_fuzz.oracle.function import all_prompt_tokens
from sr_fuzz.oracle.settings import output_window
from sr_fuzz.outcome import signature
from sr_fuzz.script import (
    Abort,
    AbortAll,
    EngineConfig,
    ExhaustKv,
    OpenSession,
    Pause,
    Prompt,
    Release,
    Script,
    SessionParams,
    StartReq,
    Step,
    StepUntil,
)


def test_more_pages_than_the_window_pool_has_may_be_left_free(sr_engine):
    """A valid script ends in an outcome: the pages that are counted are those of the full pool."""
    config = EngineConfig(
        model="swa", swa_full_tokens_ratio=0.5, max_total_tokens=128, max_running_requests=8,
        schedule_conservativeness=0.05,
    )  # fmt: skip
    actions = (StartReq("a", Prompt(1, 20), 8), Step(3), ExhaustKv(96), Step(4), Release())
    outcome = sr_engine.run(Script(config, actions))
    assert outcome.ok, outcome.report()


def test_a_chat_turn_goes_on_with_the_output_of_a_model_that_sees_a_window_only(sr_engine):
    """The second prompt goes on with what the first request really generates, as the model with its window does."""
    config = EngineConfig(model="pure_swa", max_total_tokens=256)
    actions = (
        StartReq("r0", Prompt(0, 24), 12),
        StepUntil("r0", "finished"),
        StartReq("r1", Prompt(0, 36, 2, after="r0"), 2),
    )
    outcome = sr_engine.run(Script(config, actions))
    assert outcome.ok, outcome.report()
    prompts = all_prompt_tokens(actions, output_window("pure_swa"))
    assert prompts["r1"][24:34] == list(outcome.outputs["r0"][:10])
    assert outcome.reach["cache.hits"] == 1


def test_an_abort_of_all_covers_no_request_that_comes_later(sr_engine):
    """An engine that aborts a request without being asked to is seen, also after an abort of all."""
    actions = (StartReq("r0", Prompt(0, 8), 8), Step(2), AbortAll(), Step(4), StartReq("r1", Prompt(0, 8), 12), Step(3),
               StartReq("r2", Prompt(0, 9), 12), Step(2), Abort("r2"))  # fmt: skip
    script = Script(EngineConfig(), actions)
    assert sr_engine.run(script).ok
    with sr_engine.with_faults("sr_fuzz.faults.catalogue.lifecycle:wrong_victim") as engine:
        violation = engine.run(script).violation
    assert violation is not None and (violation.invariant, violation.rule) == ("aborts", "uncalled_for")


def test_an_abort_before_a_request_in_the_same_step_does_not_make_the_next_one_come_after_it(sr_engine):
    """Which of them the engine took first is a matter of the request, not of another abort with its name."""
    actions = (Abort("r0"), AbortAll(), StartReq("r0", Prompt(0, 8), 8, ignore_eos=True))
    outcome = sr_engine.run(Script(EngineConfig(), actions))
    assert outcome.ok and len(outcome.outputs["r0"]) == 8, outcome.report()


def test_a_prompt_that_fills_the_pool_with_its_page_of_overhead_is_gone_with_the_fix_of_paged_prompts(sr_engine):
    """Admission refuses at the exact boundary too."""
    config = EngineConfig(
        page_size=16, max_total_tokens=128, disable_overlap_schedule=True, schedule_conservativeness=0.03
    )
    whole_pool = StartReq("r0", Prompt(1, 112), 1, ignore_eos=True)
    script = Script(config, (whole_pool, Step(2), StartReq("r1", Prompt(2, 2), 2, ignore_eos=True)))
    violation = sr_engine.run(script).violation
    assert violation is not None and (violation.invariant, violation.rule) == ("liveness", "stuck_waiting")
    with sr_engine.with_faults("sr_fuzz.faults.fixes.admission:refused_at_the_door") as engine:
        fixed = engine.run(script)
    assert fixed.ok and fixed.faults["refused_at_the_door"][1] > 0, fixed.report()


TIGHT = EngineConfig(max_total_tokens=200, chunked_prefill_size=8, model="swa", swa_full_tokens_ratio=0.09)
RESUMED = Script(TIGHT, (StartReq("r0", Prompt(0, 12), 1), StartReq("r1", Prompt(0, 13), 6)))
UNCHUNKED = Script(
    EngineConfig(max_total_tokens=96, chunked_prefill_size=-1, model="swa", swa_full_tokens_ratio=0.75),
    (StartReq("r0", Prompt(0, 72), 4),),
)
NEXT_TURN = Script(
    TIGHT,
    (
        StartReq("a", Prompt(3, 25), 3, ignore_eos=True),
        StepUntil("a", "finished", max_steps=100),
        Step(3),
        StartReq("b", Prompt(3, 27, 2), 12, ignore_eos=True),
        Step(5),
    ),
)


@pytest.mark.parametrize(
    ("script", "bug"),
    [
        (RESUMED, "liveness_stuck_waiting_prefix"),
        (NEXT_TURN, "liveness_stuck_waiting_prefix"),
        (UNCHUNKED, "liveness_stuck_waiting_5b2ee8"),
    ],
    ids=["a cached prefix", "a cached prefix of another length", "a prompt without chunks"],
)
def test_two_bugs_with_one_signature_are_told_apart_by_the_fix_that_acts(sr_engine, script, bug):
    """A prompt that never fits into the window's pool, and one that does not fit beside its own cached prefix."""
    version, outcome = sr_engine.sglang_version, sr_engine.run(script)
    found = signature(outcome.violation, script.config)
    assert found == "liveness:stuck_waiting:radix+overlap+swa"
    bugs = [path for path, _ in all_known(None, version).candidates(found)]
    assert len(bugs) > 1
    with closing(KnownHits(sr_engine, all_fixes(None, version), script_of)) as hits:
        look = hits.look(found, bugs, script, outcome)
    assert look.path is not None and look.path.stem == bug
    assert look.verdict in ("verified", "masked")  # behind it may come another known bug


def test_the_next_turn_may_cut_off_the_prompt_of_a_turn_that_was_aborted_in_the_queue(sr_engine):
    """A streaming session keeps one array for all its turns; the aborted one is answered, and its prompt gone."""
    actions = (
        OpenSession("s0", streaming=True),
        StartReq("r0", Prompt(1, 11, 3), 1, session=SessionParams("s0")),
        StepUntil("r0", "finished"),
        StartReq("r1", Prompt(0, 1), 3, session=SessionParams("s0")),
        StepUntil("r1", "last_chunk"),
        Pause("retract"),
        Abort("r1"),
        StartReq("r2", Prompt(0, 8), 12, session=SessionParams("s0")),
    )
    # Without these fixes the retraction ends the turn for its session, a known bug.
    fixes = (f"sr_fuzz.faults.fixes.sessions:{name}" for name in ("retracted_turn", "waiting_turn_aborted"))
    with sr_engine.with_faults(*fixes) as engine:
        outcome = engine.run(Script(EngineConfig(page_size=4, enable_streaming_session=True), actions))
    assert outcome.ok and outcome.faults["retracted_turn"][1] > 0, outcome.report()
