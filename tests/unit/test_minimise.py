"""What a user relies on: the minimal script shows the same finding, is short, and costs few runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_engine import STEP_UNTIL_STEPS, FakeEngine, Rule, leak

from sr_fuzz.outcome import Outcome, Violation, signature
from sr_fuzz.script import (
    Abort,
    Action,
    Continue,
    EngineConfig,
    FlushCache,
    Pause,
    Prompt,
    Script,
    StartReq,
    Step,
    StepUntil,
    script_hash,
    validate,
)
from sr_fuzz.script.errors import EngineError
from sr_fuzz.script.text import text
from sr_fuzz.shrink.minimise import minimise


def has(script: Script, *wanted: Action | type) -> bool:
    """Whether these actions (or kinds of action) occur in this order."""
    actions = iter(script.actions)
    return all(any(a == w or (isinstance(w, type) and isinstance(a, w)) for a in actions) for w in wanted)


def noisy(*core: Action, config: EngineConfig = EngineConfig()) -> Script:
    """A script as in a campaign: the actions that matter, among requests and actions that do not."""
    actions: list[Action] = []
    for index in range(8):
        name = f"n{index}"
        actions.append(StartReq(name, Prompt(family=index % 3, length=20 + index, unique_tail=index), 12))
        actions.append(Step(2 + index % 3))
        if index < len(core):
            actions.append(core[index])
        actions.append([Abort(name), Pause(), StepUntil(name, "first_decode"), Continue()][index % 4])
    return validate(Script(config, tuple(actions)))


def abort_while_paused(script: Script) -> Violation | None:
    """Pages leak when a request that ran before a pause is aborted after it."""
    for name in script.names:
        started = [a for a in script.actions if isinstance(a, StartReq) and a.name == name]
        if has(script, *started, Pause("in_place"), Abort(name)):
            return leak(message=f"page 5 of {name} is owned by nobody")
    return None


CORE = (StartReq("x", Prompt(2, 40, 3), 30, ignore_eos=True, priority=4), Pause("in_place"), Abort("x"))


def shrink(script: Script, rule: Rule, **options: int) -> tuple[Script, list[Script]]:
    engine = FakeEngine(rule)
    outcome = FakeEngine(rule).run(script)
    assert outcome.violation is not None
    small = minimise(script, outcome.violation, engine.run, outcome=outcome, **options)
    assert small.runs == len(engine.played)
    return small.script, engine.played


def test_only_what_the_violation_needs_is_left():
    script, played = shrink(noisy(*CORE), abort_while_paused)
    assert text(script) == "[default] r0 = start_req(0:1, new=1); pause(in_place); abort(r0)"
    assert len(played) <= 30


def test_never_slides_to_another_violation():
    """With fewer than three requests the script breaks another invariant, with a shorter script."""

    def rule(script: Script) -> Violation | None:
        if len(script.names) >= 3:
            return leak()
        return Violation("request_rows", "leaked", "row 2", 9) if script.names else None

    script, _ = shrink(noisy(*CORE), rule)
    assert len(script.names) == 3
    assert rule(script) == leak()


def test_the_place_in_sglang_is_part_of_what_is_kept():
    def rule(script: Script) -> Violation | None:
        place = "scheduler.py:abort" if has(script, Abort) else "scheduler.py:pause"
        return Violation("exception", "KeyError", "'x'", 3, location=(place,)) if has(script, Pause) else None

    script, _ = shrink(noisy(*CORE), rule)
    assert has(script, Abort)


def test_engine_traits_of_the_signature_stay():
    config = EngineConfig(
        page_size=4, max_total_tokens=96, disable_overlap_schedule=True, disable_radix_cache=True, stream_interval=3
    )
    script, _ = shrink(noisy(*CORE, config=config), abort_while_paused)
    assert script.config == EngineConfig(page_size=4, disable_overlap_schedule=True, disable_radix_cache=True)


def test_only_the_configuration_fields_that_matter_are_left():
    config = EngineConfig(max_total_tokens=96, enable_mixed_chunk=True, schedule_policy="lof", stream_interval=3)

    def rule(script: Script) -> Violation | None:
        return abort_while_paused(script) if script.config.schedule_policy == "lof" else None

    script, _ = shrink(noisy(*CORE, config=config), rule)
    assert script.config == EngineConfig(schedule_policy="lof")


def test_a_prompt_after_another_stays_after_it_as_long_as_that_matters():
    first, second = StartReq("a", Prompt(length=9), 5), StartReq("b", Prompt(length=14, unique_tail=2, after="a"))
    actions = (StartReq("x"), first, Step(9), second, Abort("x"), Step(2))

    def needs_history(script: Script) -> Violation | None:
        return leak() if any(isinstance(a, StartReq) and a.prompt.after for a in script.actions) else None

    script, _ = shrink(Script(EngineConfig(), actions), needs_history)
    assert text(script) == "[default] r0 = start_req(0:1, new=1); r1 = start_req(r0:1, new=1)"

    def needs_one(script: Script) -> Violation | None:
        return leak() if script.names else None

    script, _ = shrink(Script(EngineConfig(), (first, Step(9), second)), needs_one)
    assert text(script) == "[default] r0 = start_req(0:1, new=1)"


def test_sizes_go_down_by_halves_until_it_no_longer_shows():
    def rule(script: Script) -> Violation | None:
        return leak() if any(isinstance(a, StartReq) and a.prompt.length >= 17 for a in script.actions) else None

    script, _ = shrink(Script(EngineConfig(), (StartReq("r0", Prompt(length=80)),)), rule)
    (start,) = script.actions
    assert isinstance(start, StartReq)
    assert 17 <= start.prompt.length < 34


def test_what_was_never_played_goes_in_the_first_run():
    actions = (StartReq("r0"), Step(4), FlushCache(), *(StartReq(f"late{i}") for i in range(40)), Step(5))
    engine = FakeEngine(lambda script: leak(step=2, when="step"))
    script = Script(EngineConfig(), actions)
    outcome = FakeEngine(engine.rule).run(script)
    minimise(script, leak(step=2, when="step"), engine.run, outcome=outcome)
    assert engine.played[0].actions == (StartReq("r0"), Step(2))


def test_step_until_becomes_the_steps_that_it_took():
    def rule(script: Script) -> Violation | None:
        enough = any(
            isinstance(a, StepUntil) or (isinstance(a, Step) and a.n >= STEP_UNTIL_STEPS) for a in script.actions
        )
        return leak(step=STEP_UNTIL_STEPS, when="step") if enough else None

    script, _ = shrink(Script(EngineConfig(), (StartReq("r0"), StepUntil("r0", "first_decode"))), rule)
    assert script.actions == (Step(STEP_UNTIL_STEPS),)


def test_no_script_runs_twice_and_every_candidate_is_valid():
    script = noisy(*CORE, config=EngineConfig(page_size=16, max_total_tokens=96, chunked_prefill_size=32))
    _, played = shrink(script, abort_while_paused)
    hashes = [script_hash(s) for s in played]
    assert len(hashes) == len(set(hashes))
    assert script_hash(script) not in hashes
    for candidate in played:
        validate(candidate)


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_the_number_of_runs_is_bounded(limit: int):
    script, played = shrink(noisy(*CORE), abort_while_paused, max_runs=limit)
    assert len(played) <= limit
    assert abort_while_paused(script) is not None


def test_the_same_input_gives_the_same_runs():
    assert shrink(noisy(*CORE), abort_while_paused) == shrink(noisy(*CORE), abort_while_paused)


def test_stops_when_told_to():
    engine = FakeEngine(abort_while_paused)
    script = noisy(*CORE)
    outcome = FakeEngine(abort_while_paused).run(script)
    assert outcome.violation is not None
    small = minimise(script, outcome.violation, engine.run, outcome=outcome, stop=lambda: len(engine.played) >= 3)
    assert small.runs == 3


def test_names_stay_where_the_violation_depends_on_them():
    def rule(script: Script) -> Violation | None:
        return leak() if "x" in script.names else None

    script, _ = shrink(noisy(*CORE), rule)
    assert script.names == ("x",)


def test_an_abort_of_nobody_does_not_come_to_mean_somebody():
    def rule(script: Script) -> Violation | None:
        return leak() if script.names and has(script, Abort) and has(script, Abort("r0")) else None

    script, _ = shrink(Script(EngineConfig(), (StartReq("x"), Abort("r0"))), rule)
    assert script.actions == (StartReq("x", Prompt(length=1), 1), Abort("r0"))


def test_a_script_that_does_not_reproduce_is_given_back_after_one_run():
    engine = FakeEngine(lambda script: None)
    small = minimise(noisy(*CORE), leak(), engine.run)
    assert (small.script, small.runs, small.outcome.ok) == (noisy(*CORE), 1, True)


def test_a_configuration_that_the_engine_refuses_is_no_candidate():
    def run(script: Script) -> Outcome:
        if script.config.max_total_tokens == 128:
            raise EngineError("this configuration does not boot")
        return FakeEngine(abort_while_paused).run(script)

    script = noisy(*CORE, config=EngineConfig(max_total_tokens=96, stream_interval=3))
    small = minimise(script, leak(), run)
    assert small.script.config == EngineConfig(max_total_tokens=96)


def needs(count: int) -> Callable[[Script], Violation | None]:
    return lambda script: leak() if len(script.names) >= count else None


@pytest.mark.parametrize("rule", [abort_while_paused, needs(1), needs(2), needs(4)])
def test_thirty_runs_do_for_scripts_of_thirty_actions(rule: Rule):
    script, played = shrink(noisy(*CORE), rule)
    assert len(played) <= 32  # the goal is 30; the rest is the renaming
    assert signature(rule(script) or leak(), script.config) == "kv_pages:leaked:radix+overlap"
