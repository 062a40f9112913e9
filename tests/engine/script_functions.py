"""Script functions in the style of SGLang's scripted-runtime tests: generators over a context, a yield is one step.

They use only that API (`t.start_req`, `r.finished`, `yield`), so each of them would run on SGLang's own runtime too.
"""

from __future__ import annotations

from sr_fuzz.runtime.helpers import (
    advance_to_lifecycle_stage,
    drain_until_released,
    run_until,
    run_until_all_finished,
    run_until_finished,
)

CHUNK = 16
PROMPT_LEN = 4 * CHUNK - 3
MIDDLE_CHUNKS = (PROMPT_LEN - 1) // CHUNK
NEW = 4


def core_api(t):
    """Automatic and explicit request ids, status, find, finished."""
    assert t.is_fully_idle
    automatic = t.start_req(prompt_len=5, max_new_tokens=3, ignore_eos=True)
    explicit = t.start_req(prompt_len=5, max_new_tokens=3, rid="mine", prompt_token=7, ignore_eos=True)
    assert explicit.rid == "mine"
    assert automatic.rid != explicit.rid
    assert automatic.status == "unknown" and not automatic.finished
    yield
    assert t.find_req_by_rid("mine") is explicit.req
    assert {r.rid for r in t.list_active_reqs()} == {automatic.rid, "mine"}
    assert explicit.status == "running"
    assert t.last_batch_forward_mode == "EXTEND"
    assert sorted(t.batch_composition()["prefill"]) == sorted([automatic.rid, "mine"])
    yield from run_until_all_finished([automatic, explicit])
    assert automatic.finished and explicit.status == "finished"
    assert t.find_req_by_rid("mine") is None or explicit.req.finished()
    yield from drain_until_released(t)
    stats = t.engine_stats()
    assert stats["req_pool_free"] == stats["req_pool_total"]


def chunked_prefill(t):
    """A prompt of four chunks is prefilled in four chunks, one at a time."""
    r = t.start_req(prompt_len=PROMPT_LEN, max_new_tokens=NEW, ignore_eos=True)
    seen = []
    while not r.finished:
        yield
        seen.append((r.is_chunking, r.chunks_done, r.remaining_prompt_tokens))
    assert r.chunks_done == MIDDLE_CHUNKS + 1
    assert [c for c, _, _ in seen].count(True) == MIDDLE_CHUNKS
    assert seen[0][2] == PROMPT_LEN - CHUNK
    assert t.chunked_parks(r.rid) == 0


def pause_and_retract_at(t, stage):
    """A request that is retracted at a stage waits with its output frozen; after the pause it finishes."""
    r = t.start_req(prompt_len=PROMPT_LEN, max_new_tokens=NEW, ignore_eos=True)
    yield from advance_to_lifecycle_stage(r, stage, num_middle_chunks=MIDDLE_CHUNKS, max_new_tokens=NEW)
    t.pause_generation(mode="retract")
    yield
    assert r.status in ("waiting", "finished")
    frozen = list(r.req.output_ids) if r.req is not None else None
    for _ in range(5):
        yield
    assert frozen == (list(r.req.output_ids) if r.req is not None else None)
    assert r.kv_pages == 0 and r.lock_refs == 0
    t.continue_generation()
    yield from run_until_finished(r)







def exhauster_asked_too_much(t):
    """Asks for more pages than the pool has."""
    t.exhaust_kv(leave_pages=10_000)
    yield


def held_at_the_end(t):
    """Ends while it holds all pools."""
    t.exhaust_kv(leave_pages=0)
    yield


def wrong_assertion(t):
    """An assertion of the script itself that does not hold."""
    r = t.start_req(prompt_len=4, max_new_tokens=2)
    yield from run_until(r, lambda h: h.chunks_done == 7, max_steps=5)


def left_paused(t):
    """Ends while the engine is paused and requests wait and run."""
    t.start_req(prompt_len=20, max_new_tokens=20, ignore_eos=True)
    for _ in range(4):
        yield
    t.pause_generation(mode="in_place")
    yield


def loses_a_row(t):
    """Breaks the engine directly, as no script can, and fails."""
    t.scheduler.req_to_token_pool.free_slots.pop()
    raise AssertionError("lost a row")
    yield


def step_for_ever(t):
    """Never ends."""
    while True:
        yield
