"""Script functions: chunked prefill, and what may happen to a request between its chunks."""

from __future__ import annotations

from sr_fuzz.testing.scripted_runtime import (
    advance_to_decode_step,
    advance_to_lifecycle_stage,
    advance_to_nth_chunk,
    run_until_all_finished,
    run_until_finished,
    warmup_radix,
)
from tests.scripted.common import (
    back_to,
    chunk_size,
    chunks_of,
    extends_of,
    finish_type,
    forwards,
    output,
    reference,
    steps,
)

NEW = 4


def four_chunks(t):
    """Length of a prompt of four chunks, the last of them short."""
    return 4 * chunk_size(t) - 3


def smoke(t):
    """A prompt of four chunks is prefilled in four batches, one chunk each."""
    chunk, length = chunk_size(t), four_chunks(t)
    r = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True)
    left = []
    for _ in range(3):
        yield
        assert r.is_chunking
        left.append(r.remaining_prompt_tokens)
    assert left == [length - chunk, length - 2 * chunk, length - 3 * chunk]
    req = r.req
    yield from run_until_finished(r)
    assert r.chunks_done == 4 and extends_of(t, r) == 4 and t.chunked_parks(r.rid) == 0
    assert output(req) == reference(length, NEW)


def one_new_token(t):
    """The token comes from the last chunk: no decode runs."""
    r = t.start_req(prompt_len=four_chunks(t), max_new_tokens=1, ignore_eos=True)
    yield
    req = r.req
    yield from run_until_finished(r)
    assert forwards(t) == extends_of(t, r) == 4
    assert output(req) == reference(four_chunks(t), 1)


def length_at_boundary(t, chunks, offset):
    """A prompt of ``chunks`` chunks and ``offset`` tokens: exact chunk count, exact pages, and correct output."""
    chunk, page = chunk_size(t), t.engine_stats()["page_size"]
    length = chunks * chunk + offset
    stats = t.engine_stats()
    r = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True)
    yield
    req = r.req
    assert r.is_chunking == (length > chunk)
    assert r.kv_pages == -(-min(length, chunk) // page)
    yield from advance_to_decode_step(r, 1)
    assert not r.is_chunking and r.remaining_prompt_tokens == 0
    yield from run_until_finished(r)
    assert r.chunks_done == chunks_of(length, chunk)
    assert extends_of(t, r) == max(1, chunks_of(length, chunk))
    # The last extend makes the first token, each decode one more.
    assert forwards(t) - extends_of(t, r) == NEW - 1
    assert output(req) == reference(length, NEW)
    yield from back_to(t, stats)


# -- pauses ----------------------------------------------------------------------------------------------------


def pause_retract_at(t, stage):
    """A retracted request waits without memory, its output frozen; after the pause it ends as if it had never been
    paused."""
    stats, r, req = yield from _at_stage(t, stage)
    t.pause_generation(mode="retract")
    yield
    # The result of the last decode may have been in flight: then the pause processed it, and the request finished.
    if not (stage == "last_decode" and req.finished()):
        assert r.status == "waiting" and req in t.scheduler.waiting_queue
        assert not r.is_chunking and r.kv_pages == 0 and r.lock_refs == 0
        frozen, ran = output(req), forwards(t)
        for _ in range(4):
            yield
            assert output(req) == frozen and forwards(t) == ran and r.status == "waiting"
    t.continue_generation()
    yield from run_until_finished(r)
    yield from _ended_well(t, req, stats)


def pause_in_place_at(t, stage):
    """A request paused in place keeps its place and its memory; after the pause it ends as if it had never been
    paused."""
    stats, r, req = yield from _at_stage(t, stage)
    t.pause_generation(mode="in_place")
    yield
    assert req not in t.scheduler.waiting_queue
    frozen, ran, chunking, pages = output(req), forwards(t), r.is_chunking, r.kv_pages
    for _ in range(4):
        yield
        assert output(req) == frozen and forwards(t) == ran
        assert r.is_chunking == chunking and r.kv_pages == pages
    assert pages > 0 and chunking == (stage in ("first_chunk", "last_chunk"))
    t.continue_generation()
    yield from run_until_finished(r)
    yield from _ended_well(t, req, stats)


def abort_all_at(t, stage):
    """A request that is aborted at a stage ends within a few steps, and all resources are freed."""
    stats, r, req = yield from _at_stage(t, stage)
    t.abort_all()
    yield from run_until_finished(r, max_steps=8)
    assert not r.is_chunking
    assert finish_type(req) == "abort" or (stage == "last_decode" and finish_type(req) == "length")
    assert output(req) == reference(four_chunks(t), len(output(req)))
    yield from back_to(t, stats)


def _at_stage(t, stage):
    """A request of four chunks that has reached a stage: the pools before it, its handle, SGLang's request."""
    length, stats = four_chunks(t), t.engine_stats()
    r = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True)
    middle = (length - 1) // chunk_size(t)
    yield from advance_to_lifecycle_stage(r, stage, num_middle_chunks=middle, max_new_tokens=NEW)
    return stats, r, r.req


def _ended_well(t, req, stats):
    assert finish_type(req) == "length" and output(req) == reference(four_chunks(t), NEW)
    yield from back_to(t, stats)


# -- two requests ----------------------------------------------------------------------------------------------


def abort_one_beside_a_chunking_one(t, victim):
    """One of a decoding and a chunking request is aborted; the other ends with the correct output."""
    stats = t.engine_stats()
    decoding = t.start_req(prompt_len=5, max_new_tokens=12, ignore_eos=True, prompt_token=9)
    yield from advance_to_decode_step(decoding, 2)
    chunked = t.start_req(prompt_len=four_chunks(t), max_new_tokens=NEW, ignore_eos=True)
    yield from advance_to_nth_chunk(chunked, 2)
    assert chunked.is_chunking and decoding.status == "running"
    reqs = {"decoding": decoding.req, "chunking": chunked.req}
    t.abort(decoding if victim == "decoding" else chunked)
    yield from run_until_all_finished([decoding, chunked])
    ends = {name: finish_type(req) for name, req in reqs.items()}
    assert ends == {"decoding": "length", "chunking": "length", victim: "abort"}
    assert victim == "decoding" or output(reqs["decoding"]) == reference(5, 12, token=9)
    assert victim == "chunking" or output(reqs["chunking"]) == reference(four_chunks(t), NEW)
    yield from back_to(t, stats)


def one_chunks_after_the_other(t):
    """Two long prompts share one chunked slot: the second gets it when the first is through."""
    length = four_chunks(t)
    first = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True, prompt_token=5)
    second = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True, prompt_token=6)
    reqs = []
    holders = []
    for _ in range(40):
        yield
        if not reqs:
            reqs = [first.req, second.req]
        holders += [r.rid for r in (first, second) if r.is_chunking]
        if first.finished and second.finished:
            break
    assert list(dict.fromkeys(holders)) == [first.rid, second.rid]
    assert holders == sorted(holders, key=[first.rid, second.rid].index)
    assert [output(req) for req in reqs] == [reference(length, NEW, token=token) for token in (5, 6)]


def radix_hit_while_chunking(t):
    """Half of a long prompt is in the cache: only the other half is prefilled, in chunks, on a locked prefix."""
    chunk, length = chunk_size(t), four_chunks(t)
    yield from warmup_radix(t, [1] * (2 * chunk))
    yield from steps(2)
    before = forwards(t)
    r = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True)
    yield
    req = r.req
    assert r.is_chunking and req.cached_tokens == 2 * chunk and r.lock_refs >= 1
    assert r.remaining_prompt_tokens == length - 3 * chunk
    yield from run_until_finished(r)
    assert r.chunks_done == 2 and forwards(t) - before == 2 + NEW - 1
    assert output(req) == reference(length, NEW)


def same_prompt_while_chunking(t):
    """The same long prompt comes again while the first is between its chunks: both get the correct output."""
    length, stats = four_chunks(t), t.engine_stats()
    first = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True)
    yield from advance_to_nth_chunk(first, 2)
    second = t.start_req(prompt_len=length, max_new_tokens=NEW, ignore_eos=True)
    yield
    reqs = [first.req, second.req]
    yield from run_until_all_finished([first, second])
    assert [output(req) for req in reqs] == [reference(length, NEW)] * 2
    yield from back_to(t, stats)


# -- pipeline stages -------------------------------------------------------------------------------------------


def chunk_sweep(t, chunks, count):
    """``count`` long prompts at a time, for a loop that has several batches in flight; all end with the correct
    output."""
    length, stats = chunks * chunk_size(t) - 3, t.engine_stats()
    tokens = range(3, 3 + count)
    handles = [t.start_req(prompt_len=length, max_new_tokens=2, ignore_eos=True, prompt_token=n) for n in tokens]
    yield
    reqs = [r.req for r in handles]
    yield from run_until_all_finished(handles)
    assert [output(req) for req in reqs] == [reference(length, 2, token=token) for token in tokens]
    assert all(r.chunks_done >= chunks for r in handles)
    yield from back_to(t, stats)
