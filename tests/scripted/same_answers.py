"""A script function that compares the answers of SGLang's own query functions with ours, after every step."""

from __future__ import annotations

from sr_fuzz.testing.scripted_runtime import drain_until_released
from tests.scripted.common import chunk_size

BY_RID = ("is_finished", "is_chunking", "status", "remaining_prompt_tokens", "chunks_done", "chunked_parks")


def agrees_with_sglang(t):
    """Over chunks, decodes, a retraction, aborts and finishes; each request is queried whether it runs or not."""
    # Imported here: the file is also imported where there is no SGLang, and only an engine's process has a scheduler.
    from sglang.test.scripted_runtime.context import engine, queries

    compared = 0

    def compare(rids):
        nonlocal compared
        own = _Twin(t)
        for name in ("is_idle", "is_fully_idle", "last_batch_forward_mode"):
            assert getattr(t, name) == getattr(queries, name)(own), name
        assert t.batch_composition() == queries.batch_composition(own)
        assert t.engine_stats() == engine.engine_stats(own)
        assert {req.rid for req in t.list_active_reqs()} == {req.rid for req in queries.list_active_reqs(own)}
        for rid in rids:
            assert t.find_req_by_rid(rid) is queries.find_req_by_rid(own, rid)
            for name in BY_RID:
                ours, theirs = getattr(t, name)(rid), getattr(queries, name)(own, rid)
                assert ours == theirs, f"{name}({rid}): {ours!r}, SGLang says {theirs!r}"
                compared += 1

    handles = []
    for step in range(60):
        if step < 8:
            length = 3 * chunk_size(t) if step % 3 == 0 else 5
            handles.append(t.start_req(prompt_len=length, max_new_tokens=8, prompt_token=step + 1, ignore_eos=True))
        if step == 5:
            t.abort(handles[1])
        if step == 12:
            t.pause_generation(mode="retract")
        if step == 16:
            t.continue_generation()
        if step == 24:
            t.abort_all()
        compare([r.rid for r in handles] + ["nobody"])
        yield
    yield from drain_until_released(t)
    compare([r.rid for r in handles])
    assert compared > 2000


class _Twin:
    """What SGLang's query functions need of a context, with a memory of its own."""

    def __init__(self, t):
        self.scheduler = t.scheduler
        self._scheduler_hook = t._scheduler_hook
        self._seen_rids = set(t._seen_rids)
