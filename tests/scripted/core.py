"""Script functions for the core API, one behaviour each."""

from __future__ import annotations

from sr_fuzz.script import EOS_TOKEN_ID
from sr_fuzz.testing.scripted_runtime import (
    ScriptedReqHandle,
    advance_to_decode_step,
    advance_to_nth_chunk,
    drain_until_released,
    exhaust_row_pool,
    run_until,
    run_until_all_finished,
    run_until_finished,
    warmup_radix,
)
from tests.scripted.common import back_to, chunk_size, finish_type, forwards, output, reference, steps

# -- starting, finding, finishing ------------------------------------------------------------------------------


def automatic_rids(t):
    """Each rid is new, and an abort of one, which SGLang matches by prefix, aborts no other request."""
    handles = [t.start_req(prompt_len=4, max_new_tokens=12, ignore_eos=True) for _ in range(12)]
    assert len({r.rid for r in handles}) == 12
    assert all(r.rid.startswith("scripted-") for r in handles)
    yield
    reqs = [r.req for r in handles]
    t.abort(handles[1])
    yield from run_until_all_finished(handles)
    assert [finish_type(req) for req in reqs] == ["length", "abort"] + ["length"] * 10


def explicit_rid(t):
    """The engine knows the request by this rid."""
    r = t.start_req(prompt_len=5, max_new_tokens=3, rid="mine", ignore_eos=True)
    assert r.rid == "mine"
    assert t.find_req_by_rid("mine") is None and r.status == "unknown"
    yield
    assert t.find_req_by_rid("mine") is r.req and r.req.rid == "mine"
    yield from run_until_finished(r)


def unknown_rid(t):
    """No request with this rid was ever started."""
    nobody = ScriptedReqHandle(rid="nobody", context=t)
    assert nobody.req is None and t.find_req_by_rid("nobody") is None
    assert nobody.status == "unknown" and not nobody.finished and not nobody.is_chunking
    assert nobody.chunks_done == 0 and nobody.remaining_prompt_tokens == 0
    assert nobody.kv_pages == 0 and nobody.lock_refs == 0
    assert t.chunked_parks("nobody") == 0
    yield


def from_start_to_finish(t):
    """Status, idleness and the list of active requests over the course of one request."""
    assert t.is_idle and t.is_fully_idle and t.list_active_reqs() == []
    r = t.start_req(prompt_len=8, max_new_tokens=6, ignore_eos=True)
    yield from advance_to_decode_step(r, 2)
    assert r.status == "running" and not r.finished and not t.is_finished(r.rid)
    assert not t.is_idle and not t.is_fully_idle
    assert t.list_active_reqs() == [r.req]
    assert t.last_batch_forward_mode == "DECODE"
    req = r.req
    yield from run_until_finished(r)
    assert t.is_finished(r.rid) and r.status == "finished"
    assert output(req) == reference(8, 6)
    yield from drain_until_released(t)
    assert t.is_idle and t.is_fully_idle and t.list_active_reqs() == []
    assert r.finished and r.req is None


def waiting_for_a_row(t):
    """A request that gets no row waits, and is served when a row becomes free."""
    rows = t.engine_stats()["req_pool_total"]
    first = [t.start_req(prompt_len=4, max_new_tokens=8, ignore_eos=True) for _ in range(rows)]
    late = t.start_req(prompt_len=4, max_new_tokens=2, ignore_eos=True)
    yield from steps(3)
    assert t.engine_stats()["req_pool_free"] == 0
    assert late.status == "waiting" and late.kv_pages == 0
    yield from run_until_all_finished([*first, late])


def finished_without_being_watched(t):
    """The request was not queried while it ran; its end is known from the batches it was in."""
    r = t.start_req(prompt_len=4, max_new_tokens=2, ignore_eos=True)
    yield from steps(8)
    assert r.req is None and r.finished and r.status == "finished"


def finish_states(t):
    """Requests end by length, by a stop token, by an abort: each has its reason, and the tokens up to that point."""
    stop = reference(8, 3)[2]
    by_length = t.start_req(prompt_len=8, max_new_tokens=5, ignore_eos=True, rid="by-length")
    by_stop = t.start_req(prompt_len=8, max_new_tokens=40, stop_token_ids=[stop], rid="by-stop")
    by_abort = t.start_req(prompt_len=8, max_new_tokens=40, ignore_eos=True, rid="by-abort")
    yield
    length, stopped, aborted = by_length.req, by_stop.req, by_abort.req
    yield from advance_to_decode_step(by_abort, 2)
    t.abort(by_abort)
    yield from run_until_all_finished([by_length, by_stop, by_abort])
    assert finish_type(length) == "length" and output(length) == reference(8, 5)
    assert finish_type(stopped) == "stop" and output(stopped) == reference(8, reference(8, 3).index(stop) + 1)
    assert finish_type(aborted) == "abort" and 2 <= len(aborted.output_ids) < 40
    assert output(aborted) == reference(8, len(aborted.output_ids))


def request_fields(t):
    """The scheduler has the values that `start_req` was given."""
    r = t.start_req(
        prompt_len=9,
        max_new_tokens=4,
        ignore_eos=True,
        priority=7,
        dp_rank=0,
        prompt_token=11,
        return_logprob=True,
        logprob_start_len=3,
        top_logprobs_num=2,
        stop_token_ids=[40, 41],
        temperature=0.5,
    )
    yield
    req = r.req
    assert list(req.origin_input_ids) == [11] * 9
    assert req.priority == 7 and req.routed_dp_rank == 0
    assert req.return_logprob and req.logprob_start_len == 3 and req.logprob.top_logprobs_num == 2
    params = req.sampling_params
    assert (params.max_new_tokens, params.ignore_eos, params.temperature) == (4, True, 0.5)
    assert set(params.stop_token_ids) == {40, 41}
    yield from run_until_finished(r)
    assert output(req) == reference(9, 4, token=11)


def one_step_a_yield(t):
    """Without a yield the engine stands still; each yield is one forward of a busy engine."""
    before = t.scheduler.forward_ct
    r = t.start_req(prompt_len=4, max_new_tokens=30, ignore_eos=True)
    assert t.scheduler.forward_ct == before
    yield from advance_to_decode_step(r, 1)
    for count in (1, 3, 5):
        before = t.scheduler.forward_ct
        yield from steps(count)
        assert t.scheduler.forward_ct == before + count


# -- chunks ----------------------------------------------------------------------------------------------------


def chunking(t):
    """The chunked slot, the chunks done and the rest of the prompt, over the course of a prompt of three chunks."""
    chunk = chunk_size(t)
    r = t.start_req(prompt_len=3 * chunk, max_new_tokens=2, ignore_eos=True)
    for done in (1, 2):
        yield from advance_to_nth_chunk(r, done)
        assert r.is_chunking and t.is_chunking(r.rid) and not t.is_chunking("nobody")
        assert r.remaining_prompt_tokens == (3 - done) * chunk
        assert t.last_batch_forward_mode == "EXTEND"
        assert t.batch_composition() == {"prefill": [], "decode": [], "chunked": [r.rid], "running": []}
    yield from run_until_finished(r)
    assert not r.is_chunking and r.remaining_prompt_tokens == 0
    assert r.chunks_done == 3 and t.chunked_parks(r.rid) == 0
    assert t.batch_composition()["chunked"] == []


def batch_composition(t):
    """The requests in the last batch, and the role of each."""
    r = t.start_req(prompt_len=4, max_new_tokens=4, ignore_eos=True)
    yield
    assert t.batch_composition()["prefill"] == [r.rid]
    yield
    assert t.batch_composition() == {"prefill": [], "decode": [r.rid], "chunked": [], "running": [r.rid]}
    yield from run_until_finished(r)


# -- lifecycle -------------------------------------------------------------------------------------------------


def abort_all(t):
    """Running, chunking and waiting requests all end within a few steps, and all resources are freed."""
    stats = t.engine_stats()
    running = t.start_req(prompt_len=4, max_new_tokens=60, ignore_eos=True)
    yield from advance_to_decode_step(running, 1)
    chunked = t.start_req(prompt_len=3 * chunk_size(t), max_new_tokens=2, prompt_token=5)
    yield from advance_to_nth_chunk(chunked, 1)
    # The chunk takes the whole prefill batch, so these have to wait.
    waiting = [t.start_req(prompt_len=4, max_new_tokens=2, prompt_token=6) for _ in range(3)]
    yield
    assert [r.status for r in waiting] == ["waiting"] * 3
    handles = [running, chunked, *waiting]
    reqs = [r.req for r in handles]
    t.abort_all()
    yield from run_until_all_finished(handles, max_steps=8)
    assert [finish_type(req) for req in reqs[:2]] == ["abort", "abort"]
    yield from back_to(t, stats)


def late_abort(t):
    """An abort whose arrival is not awaited arrives all the same."""
    r = t.start_req(prompt_len=4, max_new_tokens=200, ignore_eos=True)
    yield from advance_to_decode_step(r, 1)
    req = r.req
    t.abort(r, await_arrival=False)
    yield from run_until_finished(r, max_steps=150)
    assert finish_type(req) == "abort"


def continue_with_an_empty_torch_cache(t):
    """The flag is passed on, and the request continues."""
    r = t.start_req(prompt_len=8, max_new_tokens=6, ignore_eos=True)
    yield from advance_to_decode_step(r, 1)
    req = r.req
    t.pause_generation(mode="retract")
    yield
    t.continue_generation(torch_empty_cache=True)
    yield from run_until_finished(r)
    assert output(req) == reference(8, 6)


def pause_twice_continue_once(t):
    """Pauses are not counted: one continue ends two pauses."""
    r = t.start_req(prompt_len=8, max_new_tokens=6, ignore_eos=True)
    yield from advance_to_decode_step(r, 2)
    t.pause_generation(mode="in_place")
    yield
    t.pause_generation(mode="retract")
    yield from steps(2)
    before = forwards(t)
    yield from steps(4)
    assert forwards(t) == before
    t.continue_generation()
    yield from run_until_finished(r)


# -- the prefix cache ------------------------------------------------------------------------------------------


def warm_prefix(t):
    """`warmup_radix` fills the tree; a later request with that prefix hits it and locks it while it runs."""
    length = 2 * chunk_size(t)
    assert t.get_all_node_hit_counts() == {} and t.get_all_node_lock_refs() == {}
    yield from warmup_radix(t, [5] * length)
    yield from steps(2)
    hits = sum(t.get_all_node_hit_counts().values())
    assert set(t.get_all_node_lock_refs().values()) == {0}
    r = t.start_req(prompt_len=length + 4, max_new_tokens=4, prompt_token=5, ignore_eos=True)
    yield from advance_to_decode_step(r, 1)
    req = r.req
    assert req.cached_tokens == length
    assert r.lock_refs >= 1 and max(t.get_all_node_lock_refs().values()) >= 1
    assert sum(t.get_all_node_hit_counts().values()) > hits
    assert r.kv_pages >= -(-length // t.engine_stats()["page_size"])
    yield from run_until_finished(r)
    yield from drain_until_released(t)
    assert r.kv_pages == 0 and r.lock_refs == 0
    assert set(t.get_all_node_lock_refs().values()) == {0}
    assert output(req) == reference(length + 4, 4, token=5)


def flush_empties_the_tree(t):
    stats = t.engine_stats()
    yield from warmup_radix(t, [5] * 12)
    yield from steps(2)
    assert t.get_all_node_hit_counts() and t.engine_stats()["kv_pool_free"] < stats["kv_pool_free"]
    t.flush_cache()
    yield from steps(2)
    assert t.get_all_node_hit_counts() == {} and t.engine_stats() == stats


def full_eviction_only(t):
    """`evict_radix` without a prefix empties the tree; with a prefix it fails as an assertion does."""
    yield from warmup_radix(t, [5] * 12)
    yield from steps(2)
    assert t.get_all_node_hit_counts()
    t.evict_radix(prefix_tokens=None)
    yield from steps(2)
    assert t.get_all_node_hit_counts() == {}
    try:
        t.evict_radix(prefix_tokens=[5, 5])
    except AssertionError:
        return
    raise RuntimeError("evict_radix took a prefix")


# -- exhausters ------------------------------------------------------------------------------------------------


def exhaust_kv(t):
    """Held pages are not available to requests, which wait; after the release all pages are free again."""
    stats = t.engine_stats()
    t.exhaust_kv(leave_pages=2)
    assert t.engine_stats()["kv_pool_free"] == 2 * stats["page_size"]
    t.exhaust_kv(leave_pages=4)
    assert t.engine_stats()["kv_pool_free"] == 2 * stats["page_size"]
    r = t.start_req(prompt_len=3 * stats["page_size"], max_new_tokens=4, ignore_eos=True)
    yield from steps(4)
    assert r.status == "waiting"
    t._release_exhausted_pools()
    assert t.engine_stats() == stats
    yield from run_until_finished(r)


def exhaust_lock_refs(t):
    """All nodes except as many as requested are locked until the release."""
    for token in (5, 6, 7):
        yield from warmup_radix(t, [token] * 12)
    yield from steps(2)
    nodes = len(t.get_all_node_lock_refs())
    assert nodes >= 3 and set(t.get_all_node_lock_refs().values()) == {0}
    t.exhaust_lock_refs(leave_refs=1)
    assert list(t.get_all_node_lock_refs().values()).count(0) <= 1
    t.exhaust_lock_refs(leave_refs=0)
    assert 0 not in t.get_all_node_lock_refs().values()
    t._release_exhausted_pools()
    assert set(t.get_all_node_lock_refs().values()) == {0}


def exhaust_rows(t):
    """Ballast holds rows for as long as it runs."""
    stats = t.engine_stats()
    # Each ballast request asks for all tokens that one request may have.
    count = min(3, stats["kv_pool_free"] // t.scheduler.max_req_len)
    leave = stats["req_pool_total"] - count
    yield from exhaust_row_pool(t, leave_rows=leave)
    assert t.engine_stats()["req_pool_free"] == leave
    yield from exhaust_row_pool(t, leave_rows=leave + 1)
    t.abort_all()
    yield from back_to(t, stats)


def eos_is_no_end(t):
    """For an engine that was started with `base_engine_kwargs`: the oracle emits EOS, and the request continues."""
    said = reference(16, 4)
    assert EOS_TOKEN_ID in said[:2]
    r = t.start_req(prompt_len=16, max_new_tokens=4)
    yield
    req = r.req
    yield from run_until_finished(r)
    assert finish_type(req) == "length" and output(req) == said


# -- failing ---------------------------------------------------------------------------------------------------


def nothing(t):
    """Returns before the first step."""
    yield from ()


def wrong_assertion(t):
    yield
    assert False, "boom"


def runtime_error(t):
    yield
    raise RuntimeError("simulated")


def not_a_generator(t):
    return None


def bound_reached(t):
    r = t.start_req(prompt_len=4, max_new_tokens=8, ignore_eos=True)
    yield from run_until(r, lambda h: h.chunks_done == 7, max_steps=5)
