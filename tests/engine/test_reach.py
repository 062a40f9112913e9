"""What a run reports as reached is what its script brought about."""

from __future__ import annotations

from sr_fuzz.script import (
    Abort,
    AbortAll,
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
)

OVERLAP = EngineConfig()


def reach(engine, *actions: Action, config: EngineConfig = OVERLAP) -> dict[str, int]:
    outcome = engine.run(Script(config, actions))
    assert outcome.ok, outcome.report()
    return outcome.reach


def only(counts: dict[str, int], group: str) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if kind.startswith(f"{group}.")}


def test_chunks_batches_and_the_end_of_a_request(sr_engine):
    counts = reach(sr_engine, StartReq("r0", Prompt(0, 40), 3, ignore_eos=True), Step(3), Abort("r1"))
    assert only(counts, "chunk") == {"chunk.prompts": 1, "chunk.middle": 2}
    assert counts["batch.extend"] == 3 and counts["max.chunks"] == 3
    assert only(counts, "finish") == {"finish.length": 1}
    assert only(counts, "abort") == {"abort.unknown": 1}
    assert only(counts, "action") == {"action.start_req": 1, "action.step": 1, "action.abort": 1}


def test_stages_are_reached_or_missed(sr_engine):
    counts = reach(
        sr_engine,
        StartReq("r0", Prompt(0, 40), 8, ignore_eos=True),
        StepUntil("r0", "nth_chunk", nth=2),
        StepUntil("r0", "last_decode", max_steps=2),
        StepUntil("r0", "finished"),
        StepUntil("r0", "mid_decode"),
    )
    assert only(counts, "stage") == {
        "stage.nth_chunk": 1, "stage.last_decode.missed": 1, "stage.finished": 1, "stage.mid_decode.missed": 1
    }  # fmt: skip


def test_where_a_request_was_when_it_was_aborted(sr_engine):
    counts = reach(
        sr_engine,
        StartReq("chunked", Prompt(0, 40), 8),
        Step(2),
        Abort("chunked"),
        Step(2),
        StartReq("running", Prompt(1, 4), 30, ignore_eos=True),
        Step(5),
        StartReq("waiting", Prompt(2, 110), 2),
        Step(2),
        StartReq("early", Prompt(3, 4), 2),
        Abort("early"),
        AbortAll(),
        Step(3),
        Abort("running"),
    )
    assert only(counts, "abort") == {
        "abort.chunked": 1, "abort.arriving": 1, "abort.running": 1, "abort.waiting": 1, "abort.finished": 1
    }  # fmt: skip


def test_retractions_have_a_cause(sr_engine):
    start = StartReq("r0", Prompt(0, 8), 20, ignore_eos=True)
    counts = reach(sr_engine, start, Step(4), Pause("retract"), Step(2), Pause("in_place"), Step(1), Continue())
    assert only(counts, "retract") == {"retract.pause": 1}
    assert only(counts, "pause") == {
        "pause.retract": 1, "pause.in_place": 1, "pause.at_running": 1, "pause.at_retracted": 1
    }  # fmt: skip
    assert counts["cache.retracted"] == 1 and counts["step.paused"] >= 3

    small = EngineConfig(max_total_tokens=64, schedule_conservativeness=0.03, chunked_prefill_size=8)
    crowd = [action for i in range(5) for action in (StartReq(f"r{i}", Prompt(i, 3), 24), Step(1))]
    counts = reach(sr_engine, *crowd, config=small)
    assert set(only(counts, "retract")) == {"retract.memory"} and counts["max.pool_percent"] > 90

    urgent = EngineConfig(
        max_running_requests=1, enable_priority_scheduling=True, priority_scheduling_preemption_threshold=0
    )
    late = StartReq("r1", Prompt(1, 8), 4, priority=5)
    counts = reach(sr_engine, StartReq("r0", Prompt(0, 8), 20, priority=0), Step(4), late, Step(2), config=urgent)
    assert only(counts, "retract") == {"retract.preempt": 1}


def test_a_prompt_that_goes_on_behind_an_answer_finds_its_pages(sr_engine):
    first = StartReq("r0", Prompt(0, 12), 6, ignore_eos=True)
    done = StepUntil("r0", "finished")
    counts = reach(sr_engine, first, done, StartReq("r1", Prompt(length=20, unique_tail=3, after="r0")), Step(3))
    # The last generated token has no KV.
    assert (counts["cache.hits"], counts["cache.tokens"], counts["cache.outputs"]) == (1, 17, 1)
    counts = reach(sr_engine, first, done, StartReq("r1", Prompt(length=8, after="r0")), Step(3))
    assert counts["cache.hits"] == 1 and counts["tree.split"] >= 1 and "cache.outputs" not in counts


def test_evictions_are_the_schedulers_own_and_flushes_have_answers(sr_engine):
    fill: list[Action] = []
    for i in range(5):
        fill += [StartReq(f"r{i}", Prompt(i, 40), 1), StepUntil(f"r{i}", "finished")]
    counts = reach(sr_engine, *fill)
    assert counts["tree.evict"] >= 1 and "flush.accepted" not in counts
    busy = StartReq("x", Prompt(9, 8), 20, ignore_eos=True)
    counts = reach(sr_engine, *fill[:2], Step(2), FlushCache(), Step(1), busy, Step(4), FlushCache(), Step(1))
    assert only(counts, "flush") == {"flush.accepted": 1, "flush.refused": 1}
    assert "tree.evict" not in counts


def test_who_is_refused(sr_engine):
    config = EngineConfig(max_running_requests=1, max_queued_requests=1)
    starts = [StartReq(f"r{i}", Prompt(i, 8), 4) for i in range(4)]
    counts = reach(sr_engine, StartReq("long", Prompt(0, 126), 1), Step(1), *starts, Step(2), config=config)
    assert only(counts, "refused") == {"refused.queue_full": 3, "refused.invalid": 1}
